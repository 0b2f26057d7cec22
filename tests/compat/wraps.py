"""What the runtime wraps of vLLM, and by which function, from its syntax trees.

A wrapped method of a class stands in a tuple (or in a call of `wrap_seam`) as class, name and
function; one of an object in a call of `wrap`. Classes come from functions that return them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from error_codes import modules
from python_names import signature

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
# Of an object it is not written what it is: one of these, if it has such a method.
OBJECTS = (
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner",
    "vllm.v1.worker.gpu.model_runner:GPUModelRunner",
    "vllm.v1.worker.worker_base:WorkerBase",
)


@dataclass(frozen=True, slots=True, order=True)
class Passed:
    """What a function of ours gives vLLM's: how many by place, which by name, and whatever came."""

    places: int
    names: tuple[str, ...]
    more: bool


@dataclass(frozen=True, slots=True, order=True)
class Wrap:
    """A function of ours around one of vLLM's; no `owner` where it is an object's."""

    module: str
    owner: str
    member: str
    form: str  # the signature of ours, the wrapped function first
    passed: tuple[Passed, ...]  # each call of the wrapped function


def wraps(root: Path) -> list[Wrap]:
    """Return what is wrapped in the runtime of the repository at `root`, sorted."""
    trees = {name: tree for name, tree in modules(root) if name.startswith("interv.runtime")}
    known = {function: names for tree in trees.values() for function, names in _returned(tree)}
    found = (Wrap(*one) for module in trees for one in _wraps(module, trees, known))
    return sorted(set(found))


def _returned(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """Yield the functions that return what they import of a package, and what that is."""
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        names = dict(_imports(function))
        for node in function.body:
            if isinstance(node, ast.Return) and node.value is not None:
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                parts = [names.get(ast.unparse(one), "") for one in values]
                if all(parts):
                    yield function.name, parts


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}:{alias.name}"


def _wraps(
    module: str, trees: Mapping[str, ast.Module], known: Mapping[str, list[str]]
) -> Iterator[tuple[str, str, str, str, tuple[Passed, ...]]]:
    tree = trees[module]
    for function in (node for node in ast.walk(tree) if isinstance(node, Function)):
        owners = _owners(function, known)
        for owner, member, wrapper in _triples(function):
            ours = _resolved(wrapper, module, function, trees)
            if ours is None:
                continue
            for name in _values(member, function):
                written = ast.unparse(owner)
                yield module, owners.get(written, written), name, signature(ours), _passed(ours)


def _passed(ours: Function) -> tuple[Passed, ...]:
    """Return each call of what `ours` is around; functions in it may be around something else."""
    inner = [n for n in ast.walk(ours) if isinstance(n, Function) and n is not ours]
    others = {c for n in inner if "original" in ast.unparse(n.args) for c in ast.walk(n)}
    calls = (n for n in ast.walk(ours) if isinstance(n, ast.Call) and n not in others)
    found = []
    for call in (one for one in calls if ast.unparse(one.func) == "original"):
        starred = [one for one in call.args if isinstance(one, ast.Starred)]
        names = tuple(one.arg for one in call.keywords if one.arg)
        more = bool(starred) or len(names) < len(call.keywords)
        found.append(Passed(len(call.args) - len(starred), names, more))
    return tuple(sorted(found))


def _owners(function: Function, known: Mapping[str, list[str]]) -> dict[str, str]:
    """Return what the variables of a function are, and calls, that give a class of vLLM."""
    owners = {}
    for node in ast.walk(function):
        called = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
        if called in known and len(known[called]) == 1:
            owners[ast.unparse(node)] = known[called][0]
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            for name, one in _pairs(target, value, known):
                owners[ast.unparse(name)] = one
    return owners


def _pairs(
    target: ast.expr, value: ast.expr, known: Mapping[str, list[str]]
) -> Iterator[tuple[ast.expr, str]]:
    targets = target.elts if isinstance(target, ast.Tuple) else [target]
    values = value.elts if isinstance(value, ast.Tuple) else [value]
    given = [
        one
        for part in values
        for one in known.get(
            ast.unparse(part.func).rpartition(".")[2] if isinstance(part, ast.Call) else "", [""]
        )
    ]
    if len(given) == len(targets):
        yield from ((name, one) for name, one in zip(targets, given, strict=True) if one)


def _triples(function: Function) -> Iterator[tuple[ast.expr, ast.expr, ast.expr]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Tuple) and len(node.elts) in (3, 4):
            yield node.elts[0], node.elts[1], node.elts[2]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("wrap", "wrap_seam"):
            if [one for one in node.args if isinstance(one, ast.Starred)]:
                continue
            owner, member, wrapper, *_ = node.args
            yield owner, member, wrapper


def _values(member: ast.expr, function: Function) -> list[str]:
    """Return the texts that an expression is: one, or those that a loop gives it."""
    if isinstance(member, ast.Constant):
        return [member.value] if isinstance(member.value, str) else []
    for node in ast.walk(function):
        if isinstance(node, ast.For) and ast.unparse(node.target) == ast.unparse(member):
            return [str(one) for one in ast.literal_eval(node.iter)]
    return []


def _resolved(
    wrapper: ast.expr, module: str, function: Function, trees: Mapping[str, ast.Module]
) -> Function | None:
    """Return the function that an expression names, or that a function of ours makes."""
    if isinstance(wrapper, ast.Call):
        maker = _resolved(wrapper.func, module, function, trees)
        return None if maker is None else _first(maker.body)
    tree = trees[module]
    if isinstance(wrapper, ast.Name):
        return (
            _named(function, wrapper.id)
            or _named(tree, wrapper.id)
            or _from(dict(_imports(tree)).get(wrapper.id, ""), trees)
        )
    if isinstance(wrapper, ast.Attribute) and isinstance(wrapper.value, ast.Name):
        if wrapper.value.id == "self":
            return _named(tree, wrapper.attr)
        source = dict(_imports(tree)).get(wrapper.value.id, "").replace(":", ".")
        return _named(trees[source], wrapper.attr) if source in trees else None
    return None


def _from(source: str, trees: Mapping[str, ast.Module]) -> Function | None:
    module, _, name = source.partition(":")
    return _named(trees[module], name) if module in trees else None


def _named(tree: ast.AST, name: str) -> Function | None:
    """Return a function, or a method, of that name whose first argument is what it wraps."""
    for node in ast.walk(tree):
        if isinstance(node, Function) and node.name == name:
            return node
    return None


def _first(body: Sequence[ast.stmt]) -> Function | None:
    return next((one for one in body if isinstance(one, Function)), None)
