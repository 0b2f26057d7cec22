"""Find a name of a package in its Python files, without importing any: where it is and its form.

A name is written `package.module:Class.member`, or less of it. What counts: functions, classes,
what a module or a class assigns or declares, what a module imports from another, what one with a
`__getattr__` names in a text, what any method assigns to `self`, and all of it in base classes.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "module", "class", "def", "static", "classmethod", "property", "value", "field", "self", "lazy"
]
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
# Imports that lead in a circle, or classes that do, end here.
_DEEPEST = 20
_DECORATED: dict[str, Kind] = {
    "staticmethod": "static",
    "classmethod": "classmethod",
    "property": "property",
    "cached_property": "property",
}


@dataclass(frozen=True, slots=True)
class Found:
    """What a name is: its file, its kind, and its signature or its declared type, "" without.

    A "field" is declared without a value, "self" is assigned in a method: a class does not show
    either. "lazy" is what a module's `__getattr__` gives.
    """

    file: str
    kind: Kind
    form: str = ""


class Package:
    """The files of a package; `read` returns the text of one, None where it is not there."""

    def __init__(self, read: Callable[[str], str | None]) -> None:
        self._read = read
        self._modules = functools.cache(self._parse)

    def find(self, name: str) -> Found | None:
        """Return what `package.module:Class.member` is, None where it is not there."""
        module, _, inner = name.partition(":")
        path = inner.split(".") if inner else []
        return self._in_module(module, path, 0)

    def _parse(self, module: str) -> _Module | None:
        stem = module.replace(".", "/")
        for file, package in ((f"{stem}.py", False), (f"{stem}/__init__.py", True)):
            if (text := self._read(file)) is not None:
                return _Module(module, file, package, _scope(ast.parse(text).body))
        return None

    def _in_module(self, name: str, path: Sequence[str], depth: int) -> Found | None:
        module = self._modules(name)
        if module is None or depth > _DEEPEST:
            return None
        if not path:
            return Found(module.file, "module")
        first, *rest = path
        node = module.names.get(first)
        if node is None:
            if (inner := self._modules(f"{name}.{first}")) is not None:
                return self._in_module(inner.name, rest, depth + 1)
            return Found(module.file, "lazy") if not rest and module.is_lazy(first) else None
        if isinstance(node, ast.alias):
            origin, outer = module.imported(first)
            if (origin, outer) == (name, [first]):  # `from . import leaf`
                origin, outer = f"{name}.{first}", []
            return self._in_module(origin, [*outer, *rest], depth + 1)
        if rest:
            if not isinstance(node, ast.ClassDef):
                return None
            return self._in_class(module, node, rest, depth + 1)
        return _found(module.file, node, "value")

    def _in_class(
        self, module: _Module, owner: ast.ClassDef, path: Sequence[str], depth: int
    ) -> Found | None:
        first, *rest = path
        members = _scope(owner.body)
        node = members.get(first)
        if isinstance(node, ast.ClassDef) and rest:
            return self._in_class(module, node, rest, depth + 1)
        if rest or depth > _DEEPEST:
            return None
        if node is not None and not isinstance(node, ast.alias):
            return _found(module.file, node, "field")
        for inner in (node for node in members.values() if isinstance(node, Function)):
            if (declared := _assigned(inner, first)) is not None:
                return Found(module.file, "self", declared)
        return self._in_bases(module, owner, first, depth)

    def _in_bases(
        self, module: _Module, owner: ast.ClassDef, member: str, depth: int
    ) -> Found | None:
        for base in owner.bases:
            base = base.value if isinstance(base, ast.Subscript) else base
            path = ast.unparse(base).split(".")
            if found := self._in_module(module.name, [*path, member], depth + 1):
                return found
        return None


@dataclass(frozen=True)
class _Module:
    name: str
    file: str
    package: bool
    names: dict[str, ast.AST]

    def imported(self, name: str) -> tuple[str, list[str]]:
        """Return the module that an imported name comes from, and its name there."""
        alias = self.names[name]
        assert isinstance(alias, ast.alias)
        source: ast.ImportFrom | None = getattr(alias, "source", None)
        if source is None:  # `import a.b.c` binds `a`
            return (alias.name if alias.asname else alias.name.split(".")[0]), []
        parts = self.name.split(".")
        up = source.level - self.package
        near = parts[: len(parts) - up] if source.level else []
        return ".".join([*near, *([source.module] if source.module else [])]), [alias.name]

    def is_lazy(self, name: str) -> bool:
        """Say whether the module's `__getattr__` may give a name: some text of it says so."""
        if "__getattr__" not in self.names:
            return False
        trees = (node for node in self.names.values() if not isinstance(node, ast.alias))
        return any(
            isinstance(node, ast.Constant) and node.value == name
            for tree in trees
            for node in ast.walk(tree)
        )


def _scope(body: Sequence[ast.stmt]) -> dict[str, ast.AST]:
    """Return what a body binds, branches included; the first of two that are not both functions."""
    names: dict[str, ast.AST] = {}
    for statement in _statements(body):
        for name, node in _bound(statement):
            # Overloads come before what they overload; setters after what they set.
            overload = isinstance(node, Function) and _is_overload(names.get(name))
            if name not in names or overload:
                names[name] = node
    return names


def _is_overload(node: ast.AST | None) -> bool:
    return isinstance(node, Function) and any(
        _last(decorator) == "overload" for decorator in node.decorator_list
    )


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            yield from _statements(statement.body)
            for handler in getattr(statement, "handlers", []):
                yield from _statements(handler.body)
            yield from _statements(getattr(statement, "orelse", []))


def _bound(statement: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(statement, Function | ast.ClassDef):
        yield statement.name, statement
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            if isinstance(statement, ast.ImportFrom):
                alias.source = statement  # type: ignore[attr-defined]  # what it is a name of
            yield alias.asname or alias.name.split(".")[0], alias
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id, statement
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            for node in ast.walk(target):
                if isinstance(node, ast.Name):
                    yield node.id, statement


def _found(file: str, node: ast.AST, bare: Kind) -> Found:
    if isinstance(node, ast.ClassDef):
        return Found(file, "class", f"({', '.join(map(ast.unparse, node.bases))})")
    if isinstance(node, Function):
        known = [_DECORATED[last] for d in node.decorator_list if (last := _last(d)) in _DECORATED]
        return Found(file, known[0] if known else "def", signature(node))
    if isinstance(node, ast.AnnAssign):
        # What a factory makes is there for objects alone.
        shown = node.value is not None and "default_factory" not in ast.unparse(node.value)
        return Found(file, "value" if shown else bare, ast.unparse(node.annotation))
    return Found(file, "value")


def signature(node: Function) -> str:
    """Return a function's parameters, their annotations and defaults, and what it returns."""
    returned = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    before = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{before}({ast.unparse(node.args)}){returned}"


def _last(decorator: ast.expr) -> str:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called).rsplit(".", 1)[-1]


def _assigned(method: Function, name: str) -> str | None:
    """Return the declared type of `self.name` where a method assigns it, "" where it has none."""
    found = None
    for node in ast.walk(method):
        if isinstance(node, ast.AnnAssign) and _is_own(node.target, name):
            return ast.unparse(node.annotation)
        if isinstance(node, ast.Attribute) and _is_own(node, name):
            found = ""
    return found


def _is_own(node: ast.AST, name: str) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr == name
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("self", "cls")
    )
