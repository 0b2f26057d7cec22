"""Collect the error codes of the source and the messages that go with them, from its syntax trees.

A code is a text of the form `E###`. Its message is the next value beside it, in a call or in a
tuple: a text, an f-string (its holes become `…`), or a name that was assigned one of those.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

CODE = re.compile(r"E[1-58][0-9]{2}")
HOLE = "…"


@dataclass(frozen=True, slots=True, order=True)
class Use:
    """One place that names a code; `message` is empty where it stands apart from its code."""

    code: str
    module: str
    message: str


def uses(root: Path) -> list[Use]:
    """Return every use of a code in the packages of the repository at `root`, sorted."""
    return sorted({use for module, tree in modules(root) for use in _uses(module, tree)})


def modules(root: Path) -> Iterator[tuple[str, ast.Module]]:
    """Yield the name and the syntax tree of every module that installs."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    folders: dict[str, str] = project["tool"]["setuptools"]["package-dir"]
    for package, folder in folders.items():
        for file in sorted((root / folder).glob("*.py")):
            name = package if file.stem == "__init__" else f"{package}.{file.stem}"
            yield name, ast.parse(file.read_text(encoding="utf-8"))


def _uses(module: str, tree: ast.Module) -> Iterator[Use]:
    together: set[ast.expr] = set()
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.FunctionDef):
            continue
        assigned = list(_assigned(scope))
        for values in _rows(scope):
            for code, value in pairwise(values):
                if _is_code(code) and (message := _text(_meant(value, assigned))):
                    together.add(code)
                    yield Use(_value(code), module, message)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and _is_code(node) and node not in together:
            yield Use(_value(node), module, "")


def _rows(scope: ast.FunctionDef) -> Iterator[Sequence[ast.expr]]:
    for node in ast.walk(scope):
        if isinstance(node, ast.Call):
            yield node.args
        if isinstance(node, ast.Tuple):
            yield node.elts


def _assigned(scope: ast.FunctionDef) -> Iterator[tuple[ast.Name, ast.expr]]:
    """Yield the names that are given a value, alone or several in one line."""
    for node in ast.walk(scope):
        if not isinstance(node, ast.Assign):
            continue
        target = node.targets[0]
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        for name, value in zip(names, values, strict=False):
            if isinstance(name, ast.Name):
                yield name, value


def _meant(value: ast.expr, assigned: Sequence[tuple[ast.Name, ast.expr]]) -> ast.expr:
    """Return what a name was last given above its use, and any other value as it is."""
    if not isinstance(value, ast.Name):
        return value
    above = [one for one in assigned if one[0].id == value.id and one[0].lineno <= value.lineno]
    return max(above, key=lambda one: one[0].lineno)[1] if above else value


def _text(value: ast.expr) -> str:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return "" if _is_code(value) else value.value
    if isinstance(value, ast.JoinedStr):
        parts = (p.value if isinstance(p, ast.Constant) else HOLE for p in value.values)
        return "".join(str(part) for part in parts)
    return ""


def _is_code(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and bool(CODE.fullmatch(str(node.value)))


def _value(node: ast.expr) -> str:
    assert isinstance(node, ast.Constant)
    return str(node.value)
