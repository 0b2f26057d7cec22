"""Which of the seams the installed vLLM has, and by which way.

All are looked at before any is wrapped. A module that is loaded answers for itself; of others the
text is read, so that nobody imports what their process has no use for, or no device. Only what the
text does not say, as of a name that a module imports, is asked of the module.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from interv.runtime.compat.seam import Name, Need, Seam
from interv.runtime.compat.seams import SEAMS


@dataclass(frozen=True, slots=True)
class Found:
    """A seam, and which of its ways this vLLM has, counted from 0; None for none of them."""

    seam: Seam
    way: int | None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the way that was found; where none was, those that are missing."""
        if self.way is None:
            return self.lacking
        return tuple(one.path for one in self.seam.candidates[self.way])

    @property
    def lacking(self) -> tuple[str, ...]:
        """Return which names of the newest way are not there; nothing where a way is."""
        if self.way is not None:
            return ()
        return tuple(one.path for one in self.seam.candidates[0] if not exists(one))


@functools.cache
def look() -> tuple[Found, ...]:
    """Look at every seam; nothing is wrapped."""
    return look_at(SEAMS)


def look_at(seams: Sequence[Seam]) -> tuple[Found, ...]:
    """Look at some seams."""
    return tuple(Found(one, _way(one)) for one in seams)


def way(seam: Seam) -> int | None:
    """Return which way of a seam this vLLM has, 0 for the newest; None where it has none."""
    return next(found.way for found in look() if found.seam is seam)


def missing(*needs: Need) -> tuple[Found, ...]:
    """Return the seams of these needs that this vLLM does not have."""
    return tuple(one for one in look() if one.way is None and one.seam.needed_by in needs)


def loaded(seam: Seam) -> ModuleType | None:
    """Return the module of a seam that this process has loaded, the newest; None for none."""
    modules = (sys.modules.get(names[0].module) for names in seam.candidates)
    return next((one for one in modules if one is not None), None)


def _way(seam: Seam) -> int | None:
    ways = enumerate(seam.candidates)
    return next((i for i, names in ways if all(exists(one) for one in names)), None)


def exists(name: Name) -> bool:
    """Say whether this vLLM has a name; of an attribute, whether it has what it is one of."""
    member = name.member.rpartition(".")[0] if name.attribute else name.member
    module = sys.modules.get(name.module)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        return _has(module, member)
    text = _text(name.module)
    if text is None:
        return False
    return _says(text, member) or _has(_imported(name.module), member)


def _has(module: Any, member: str) -> bool:
    """Say whether a module has a member, of a class of it or its own."""
    found = module
    for part in filter(None, member.split(".")):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return found is not None


@functools.cache
def _text(module: str) -> str | None:
    """Return a module's source, "" of one that has none to read; None where there is no module.

    It is looked for where the package lies: to ask Python would load the packages around it.
    """
    package, *rest = module.split(".")
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        place = Path(folder, *rest)
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return path.read_text(encoding="utf-8")
        if any(place.parent.glob(f"{place.name}.*")):
            return ""
    return None


def _says(text: str, member: str) -> bool:
    """Say whether a module's source defines a member: a function, a class, a method or a value."""
    owner, _, name = member.rpartition(".")
    if owner:
        start = re.search(rf"^class {owner}\b", text, re.M)
        if start is None:
            return False
        rest = text[start.end() :]
        end = re.search(r"^[A-Za-z_@]", rest, re.M)
        text = rest[: end.start()] if end else rest
    indent = "    " if owner else ""
    defined = rf"^{indent}(?:(?:async )?def |class ){name}\b|^{indent}{name}\s*[:=]"
    brought = rf"^from [\w.]+ import (?:\([^)]*\b{name}\b|[^\n(]*\b{name}\b)"
    return re.search(defined if owner else f"{defined}|{brought}", text, re.M) is not None


def _imported(module: str) -> ModuleType | None:
    try:
        return importlib.import_module(module)
    except Exception:  # whatever a package does in a process or on a machine that it is not for
        return None
