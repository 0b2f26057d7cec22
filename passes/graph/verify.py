"""What is valid: one table of types, one of the ops that each stage may still hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from interv.document.sites import Site
from interv.document.spec import Capture, Node as SpecNode
from interv.errors import IntervError
from interv.passes.graph.column import Form, Kind
from interv.passes.graph.directions import Adapter, Constant, Vector
from interv.passes.graph.ir import Graph, Node, names, op_name, ops_of, origins
from interv.passes.graph.layer_ranges import Sites
from interv.passes.graph.opening import Opening
from interv.passes.graph.ops import EDITS, OPS
from interv.passes.graph.show import show

_EDITS = frozenset(edit.__name__ for edit in EDITS)
_KEPT = {"read", "select", "decay", "adapter", "linear_map", "gate", "emit", "write"} | _EDITS
_AS_BUILT = (_KEPT | {"direction", "unit"}) - {"joint"}
_FOLDED = _KEPT | {"constant", "combine"}
_FUSED = frozenset({"read", "select", "decay", "constant", "update", "probe", "emit", "write"})

# Columns that add no direction to what later ones read.
_WRITES_NOTHING = (Kind.GATE, Kind.LINEAR)

# The ops that a graph may hold after a stage.
STAGES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "build": frozenset(_AS_BUILT),
        "resolve_sites": frozenset(_AS_BUILT),
        "resolve_conflicts": frozenset(_AS_BUILT | {"combine"}),
        "fold_constants": frozenset(_FOLDED - {"joint"}),
        "solve_joint": frozenset(_FOLDED),
        "share_reads": frozenset(_FOLDED),
        "fold_adds": frozenset(_FOLDED),
        "fuse_updates": _FUSED,
        "drop_dead": _FUSED,
    }
)

_PLAIN: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        "site": lambda arg: isinstance(arg, (Site, Sites)),
        "selector": lambda arg: isinstance(arg, SpecNode),
        "capture": lambda arg: isinstance(arg, Capture),
        "vector": lambda arg: isinstance(arg, Vector),
        "adapter": lambda arg: isinstance(arg, Adapter),
        "column": lambda arg: isinstance(arg, int),
        "opening": lambda arg: isinstance(arg, Opening),
        "numbers": lambda arg: isinstance(arg, (tuple, list)),
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
            raise _broken(graph, node, reason)
    return graph


def _broken(graph: Graph, node: Node, reason: str) -> IntervError:
    """Make the error for a graph that breaks a rule, printed with the reason under the op."""
    name = names(graph).get(node, str(node))
    return IntervError(
        "E301",
        f"the compiler made an invalid graph: {name} {reason}",
        origins(node)[0].span if origins(node) else None,
        notes=[show(graph, {node: reason}), f"ops: {', '.join(OPS)}"],
        helps=["this is a bug of interv, please report it with the document that caused it"],
    )


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
    together = range(0)
    for j, form in enumerate(args[3]):
        if form.block:
            together = range(j, j + form.block)
        if not (-1 <= form.a < len(args[1]) and -1 <= form.b < len(args[1])):
            return f"has no such direction as column {j} names"
        if form.sees >> (together.stop if form.kind == Kind.JOINT else j):
            return f"has column {j} reading a later one"
        if form.gate >= j or (form.gate >= 0 and args[3][form.gate].kind != Kind.GATE):
            return f"has column {j} weighed by what is no gate before it"
        if any(form.sees >> i & 1 for i in range(j) if args[3][i].kind in _WRITES_NOTHING):
            return f"has column {j} reading what a gate or a map wrote"
        if (form.kind == Kind.LINEAR) != (form.map is not None):
            return f"has column {j} of a map that is not there"
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
