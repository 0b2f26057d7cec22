"""Names are found in syntax trees as an import would find them."""

from __future__ import annotations

import pytest
from name_table import Span
from python_names import Found, Package
from seam_table import ordered, spans_of

FILES = {
    "p/__init__.py": """
import typing
from .a import Base as Renamed
from p.b import *
LAZY = {"Engine": ".engine"}
def __getattr__(name): ...
""",
    "p/a.py": """
from typing import Generic, overload
try:
    import fast
except ImportError:
    fast = None
class Root:
    first: int
    second: int = 2
    third: list = field(default_factory=list)
    def made(self, x, /, y=1, *, z): self.kept: dict[str, int] = {}
    @property
    def shown(self) -> int: ...
    @shown.setter
    def shown(self, value): ...
class Base(Root, Generic[T]):
    A = 1
    @overload
    def over(self, a: int) -> int: ...
    @overload
    def over(self, a: str) -> str: ...
    def over(self, a): self.left, (self.right, *_) = a
    @staticmethod
    def still(a: int = 0) -> int: ...
    @functools.cached_property
    def once(self): ...
    class Inner:
        deep = 1
if X:
    async def wait(*args, **kwargs): ...
else:
    def wait(): ...
""",
    "p/sub/__init__.py": "from ..a import Base\nfrom . import leaf\nclass Child(Base): ...\n",
    "p/sub/leaf.py": "import p.a as other\nvalue = 1\nclass Far(other.Base): ...\n",
}
A = "p/a.py"


@pytest.fixture(scope="module")
def package() -> Package:
    return Package(FILES.get)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("p.a", Found(A, "module")),
        ("p.a:Base", Found(A, "class", "(Root, Generic[T])")),
        ("p:Renamed", Found(A, "class", "(Root, Generic[T])")),
        ("p:Engine", Found("p/__init__.py", "lazy")),
        ("p:Motor", None),
        ("p.sub:leaf", Found("p/sub/leaf.py", "module")),
        ("p.sub:leaf.value", Found("p/sub/leaf.py", "value")),
        ("p:sub.leaf.value", Found("p/sub/leaf.py", "value")),
        ("p.a:wait", Found(A, "def", "async (*args, **kwargs)")),
        ("p.a:Base.over", Found(A, "def", "(self, a)")),
        ("p.a:Base.still", Found(A, "static", "(a: int=0) -> int")),
        ("p.a:Base.once", Found(A, "property", "(self)")),
        ("p.a:Base.A", Found(A, "value")),
        ("p.a:Base.left", Found(A, "self")),
        ("p.a:Base.right", Found(A, "self")),
        ("p.a:Base.Inner.deep", Found(A, "value")),
        ("p.a:Base.kept", Found(A, "self", "dict[str, int]")),
        ("p.sub:Child.made", Found(A, "def", "(self, x, /, y=1, *, z)")),
        ("p.sub.leaf:Far.shown", Found(A, "property", "(self) -> int")),
        ("p.sub:Child.first", Found(A, "field", "int")),
        ("p.sub:Child.second", Found(A, "value", "int")),
        ("p.sub:Child.third", Found(A, "field", "list")),
        ("p.sub:Child.fourth", None),
        ("p.none:Child", None),
    ],
)
def test_a_name_is_found(package: Package, name: str, found: Found | None) -> None:
    assert package.find(name) == found


def test_classes_that_lead_in_a_circle_end() -> None:
    files = {
        "c.py": "from d import B\nclass A(B): ...\n",
        "d.py": "from c import A\nclass B(A): ...\n",
    }
    assert Package(files.get).find("c:A.member") is None


def test_versions_that_agree_are_one_line() -> None:
    one, two = Found(A, "def", "(a)"), Found(A, "def", "(a, b)")
    versions = ordered(["0.10.0", "0.9.0", "0.12.0", "0.11.0", "0.9.0"])
    assert versions == ["0.9.0", "0.10.0", "0.11.0", "0.12.0"]
    known = {"0.9.0": one, "0.10.0": one, "0.12.0": two}
    assert list(spans_of(versions, known)) == [
        Span("0.9.0", "0.10.0", A, "def", "(a)"),
        Span("0.12.0", "", A, "def", "(a, b)"),
    ]
