"""Collect the names of vLLM that the runtime uses, from its syntax trees.

A file uses what it imports of vLLM, what it reads of an imported class or module, the fields that
it makes an imported class with, and the methods that it overrides in a class of vLLM. What is read
of an object that is passed around (a scheduler, a runner) cannot be told from a syntax tree.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from error_codes import modules
from python_names import signature

# Names that a module binds, by what they are: `vllm.config:CompilationMode`.
_Names: TypeAlias = Mapping[str, str]
_Classes: TypeAlias = Mapping[str, ast.ClassDef]


@dataclass(frozen=True, slots=True, order=True)
class Use:
    """A name of vLLM in a module; `optional` where the module goes on without it.

    `override` is the signature of a method that stands in its place, where vLLM has it.
    """

    name: str
    module: str
    optional: bool = False
    override: str = ""


@functools.cache
def vllm_uses(root: Path) -> tuple[Use, ...]:
    """Return every use of a name of vLLM in the runtime of the repository at `root`, sorted."""
    runtime = [one for one in modules(root) if one[0].startswith("interv.runtime")]
    classes = {
        f"{module}:{node.name}": node
        for module, tree in runtime
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    return tuple(sorted({use for module, tree in runtime for use in _uses(module, tree, classes)}))


def _uses(module: str, tree: ast.Module, classes: _Classes) -> Iterator[Use]:
    names: dict[str, str] = {}
    guarded = set(_guarded(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = names[alias.asname or alias.name] = f"{node.module}:{alias.name}"
                if name.startswith("vllm"):
                    yield Use(name, module, node in guarded)
    known = {name: origin for name, origin in names.items() if origin.startswith("vllm")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in known and isinstance(node.ctx, ast.Load):
                yield Use(f"{known[node.value.id]}.{node.attr}", module)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in known and node.func.id[:1].isupper():
                for keyword in node.keywords:
                    yield Use(f"{known[node.func.id]}.{keyword.arg}", module)
        elif isinstance(node, ast.ClassDef):
            yield from _overrides(module, node, names, classes)


def _guarded(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the statements that a file does without where they fail with an ImportError."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Try):
            caught = (ast.unparse(h.type) for h in node.handlers if h.type)
            if any("ImportError" in one for one in caught):
                yield from node.body


def _overrides(module: str, node: ast.ClassDef, names: _Names, classes: _Classes) -> Iterator[Use]:
    """Yield the methods of a class, and of ours that it mixes in, that stand for one of vLLM's."""
    bases = [names.get(ast.unparse(base), "") for base in node.bases]
    bodies = [node, *(classes[base] for base in bases if base in classes)]
    methods = [one for body in bodies for one in body.body if isinstance(one, ast.FunctionDef)]
    for base in (base for base in bases if base.startswith("vllm")):
        for method in methods:
            yield Use(f"{base}.{method.name}", module, True, signature(method))
