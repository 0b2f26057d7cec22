"""What is valid: one table of types, one of the ops that each stage may still hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from interv.passes.columns import Form
from interv.passes.constants import Constant, Vector
from interv.passes.ir import Graph, Node, broken, op_name, ops_of, origins
from interv.passes.layers import Sites
from interv.passes.ops import OPS
from interv.sites import Site
from interv.spec import Node as SpecNode

_AS_BUILT = frozenset({"read", "select", "direction", "unit", "steer", "cap", "ablate", "write"})
_FOLDED = frozenset({"read", "select", "constant", "steer", "cap", "ablate", "combine", "write"})
_FUSED = frozenset({"read", "select", "constant", "update", "write"})

# The ops that a graph may hold after a stage.
STAGES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "build": _AS_BUILT,
        "resolve_sites": _AS_BUILT,
        "resolve_conflicts": _AS_BUILT | {"combine"},
        "fold_constants": _FOLDED,
        "fold_adds": _FOLDED,
        "fuse_updates": _FUSED,
        "drop_dead": _FUSED,
    }
)

_PLAIN: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        "site": lambda arg: isinstance(arg, (Site, Sites)),
        "selector": lambda arg: isinstance(arg, SpecNode),
        "vector": lambda arg: isinstance(arg, Vector),
        "constant": lambda arg: isinstance(arg, Constant),
        "number": lambda arg: isinstance(arg, float) and arg == arg,
    }
)


def verify(graph: Graph, stage: str) -> Graph:
    """Check a graph against the rules of a stage and return it; raise E301 where it breaks one."""
    graph.lint()
    for node in ops_of(graph):
        reason = _broken_rule(node, stage)
        if reason is not None:
            raise broken(graph, node, reason)
    return graph


def _broken_rule(node: Node, stage: str) -> str | None:
    name = op_name(node)
    if name not in OPS or OPS[name].fn is not node.target:
        return f"'{name}' is not an op"
    if name not in STAGES[stage]:
        return f"'{name}' is not allowed after {stage}"
    op = OPS[name]
    if len(node.args) != len(op.args):
        return f"has {len(node.args)} arguments, '{name}' takes {len(op.args)}"
    for kind, arg in zip(op.args, node.args, strict=True):
        if not _fits(arg, kind):
            return f"has {arg!r} for a {kind}"
    if stage != "build" and any(isinstance(arg, Sites) for arg in node.args):
        return "is at a site that is not resolved"
    if not origins(node):
        return "comes from no statement"
    if name == "update":
        return _broken_update(node)
    return None


def _broken_update(node: Node) -> str | None:
    args: Any = node.args
    if not len(args[2]) == len(args[3]) == len(node.meta.get("columns", ())):
        return "has not one mask and one origin for each column"
    for j, form in enumerate(args[3]):
        if not (-1 <= form.a < len(args[1]) and 0 <= form.b < len(args[1])):
            return f"has no such direction as column {j} names"
        if form.sees >> j:
            return f"has column {j} reading a later one"
    return None


def _fits(arg: Any, kind: str) -> bool:
    if kind in _PLAIN:
        return _PLAIN[kind](arg)
    if kind == "columns":
        return isinstance(arg, (tuple, list)) and all(isinstance(one, Form) for one in arg)
    if kind.endswith("*"):
        return isinstance(arg, (tuple, list)) and all(_fits(one, kind[:-1]) for one in arg)
    return isinstance(arg, Node) and _type(arg) == kind


def _type(node: Node) -> str:
    if node.op == "placeholder":
        return str(node.target)
    return OPS[op_name(node)].result if op_name(node) in OPS else "?"
