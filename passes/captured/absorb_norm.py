"""Join an update with the fused add-RMSNorm that follows it, so that an edit adds no launch.

    before                                          after
    update(%x, %residual, "post_block[3]")          %n = update_norm(%x, %residual, %w, eps, …)
    %n = fused_add_rms_norm(%x, %residual, %w, eps)  %y = %n[0]
    %y = %n[0]                                      …

*Needs* a graph that `splice` has been over. *Keeps* what every other node reads, and the order of
updates. *Refuses*, with the reason, a site whose edited value something else reads, or whose norm
is not a plain RMSNorm of the same two operands; its update stays as it is.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, Node

from interv.passes.captured.in_place import is_fused_sum, reads_shape, schema_of, written
from interv.passes.captured.norm_rounding import Rounding
from interv.passes.captured.splice import SITE, UpdateOps

# The arguments of a fused add-RMSNorm by the names they go by; more would mean another op.
_NAMES = {
    "x": "hidden",
    "input": "hidden",
    "x_residual": "residual",
    "residual": "residual",
    "weight": "weight",
    "epsilon": "epsilon",
    "variance_size": "variance_size",
}
# Functions whose result may lie in the memory of their first argument. Of methods, all may but
# `clone`.
_VIEWS = frozenset({"view", "reshape", "squeeze", "unsqueeze", "flatten", "transpose", "permute"})


@dataclass(frozen=True, slots=True)
class NormOps:
    """The two forms of an update with its norm, as calls that a graph may hold.

    `functional(hidden, residual, weight, epsilon, rounding, site)` returns what the norm gives
    and the new residual; `in_place` writes the one into `hidden`, the other into `residual`.
    For an update that takes a block's name and a kind, so do these.
    """

    functional: UpdateOps
    in_place: UpdateOps


@dataclass(frozen=True, slots=True)
class Absorbed:
    """The sites whose updates joined their norms, and why each other one did not."""

    sites: tuple[str, ...]
    kept: Mapping[str, str]


class _Kept(Exception):
    """An update that stays as it is; the message is the reason."""


def absorb_norm(
    graph: Graph,
    update: UpdateOps,
    ops: NormOps,
    rounding: Rounding = Rounding.COMPILED,
    edited: Collection[str] | None = None,
) -> Absorbed:
    """Join every call of `update` with the norm that directly follows it, where there is one.

    `rounding` is how the functional op is run here; one that writes its arguments is the kernel.
    Where `edited` is given, the calls at other sites only read and stay as they are.
    """
    nodes = tuple(graph.nodes)
    order = {node: index for index, node in enumerate(nodes)}
    sites: list[str] = []
    kept: dict[str, str] = {}
    for node in nodes:
        if node.op != "call_function" or node.target not in update.all:
            continue
        site = str(node.meta[SITE])
        if edited is not None and site not in edited:
            kept[site] = "it only captures, so there is nothing to join"
            continue
        try:
            norm = _following(node, nodes, order)
        except _Kept as reason:
            kept[site] = str(reason)
            continue
        _join(graph, node, norm, ops, rounding)
        sites.append(site)
    return Absorbed(tuple(sites), kept)


def _following(update: Node, nodes: Sequence[Node], order: Mapping[Node, int]) -> Node:
    """Return the norm that an update may join. Raises _Kept where there is none."""
    hidden, residual = update.args[:2]
    if not isinstance(hidden, Node) or not isinstance(residual, Node):
        raise _Kept("the stream is one tensor here, so no add-norm follows")
    own, carried = _memory(hidden), _memory(residual)
    for node in nodes[order[update] + 1 :]:
        used = {*node.all_input_nodes}
        if is_fused_sum(node) and used & own:
            _check_norm(node, hidden, residual)
            _check_readers(node, own, nodes, order)
            return node
        if SITE in node.meta:
            raise _Kept(f"the edit at {node.meta[SITE]} comes between it and the norm")
        if used & own:
            raise _Kept(f"'{node.name}' reads the edited value before the norm")
        if used & carried and not reads_shape(node):
            raise _Kept(f"'{node.name}' uses the residual between it and the norm")
    raise _Kept("no add-norm follows in this graph")


def _check_norm(norm: Node, hidden: Node, residual: Node) -> None:
    """Raise _Kept unless a fused sum is a plain add-RMSNorm of exactly these two."""
    name = _schema(norm).name
    if name.rpartition("::")[2] != "fused_add_rms_norm":
        raise _Kept(f"the norm that follows is '{name}', not a plain add-RMSNorm")
    given = _arguments(norm)
    if not given.keys() >= {"hidden", "residual", "weight", "epsilon"}:
        raise _Kept(f"'{name}' does not take the arguments of an add-RMSNorm")
    if given["hidden"] is not hidden or given["residual"] is not residual:
        raise _Kept(f"'{norm.name}' does not add exactly what the edit reads")
    if given.get("variance_size") is not None:
        raise _Kept("the norm that follows takes the variance of a part of each row")


def _check_readers(
    norm: Node, own: set[Node], nodes: Sequence[Node], order: Mapping[Node, int]
) -> None:
    """Raise _Kept where something behind the norm reads the value that it added.

    Behind a norm that writes in place, that memory holds what the norm gave, in either form.
    """
    if written(norm) and not _has_results(norm):
        return
    for node in nodes[order[norm] + 1 :]:
        if {*node.all_input_nodes} & own and not reads_shape(node):
            raise _Kept(f"'{node.name}' reads the edited value behind the norm too")


def _schema(node: Node) -> Any:
    if (schema := schema_of(node)) is None:
        raise _Kept(f"'{node.name}' is a function whose arguments are not known")
    return schema


def _has_results(norm: Node) -> bool:
    return len(_schema(norm).returns) > 0


def _arguments(norm: Node) -> dict[str, Any]:
    """Return what a norm is given, by our own names. Raises _Kept for one we have no name for."""
    schema = _schema(norm)
    names = [argument.name for argument in schema.arguments]
    strange = [name for name in names if name not in _NAMES]
    if strange:
        raise _Kept(f"'{schema.name}' takes '{strange[0]}', which no add-RMSNorm has")
    given = dict(zip(names, norm.args, strict=False)) | norm.kwargs
    return {_NAMES[name]: value for name, value in given.items()}


def _memory(node: Node) -> set[Node]:
    """Return the values that may lie in the memory of `node`, itself among them."""
    base = node
    while _may_alias(base) and base.args and isinstance(base.args[0], Node):
        base = base.args[0]
    out = [base]
    for one in out:
        out += [user for user in one.users if _may_alias(user) and user.args[0] is one]
    return {*out}


def _may_alias(node: Node) -> bool:
    if node.op == "call_method":
        return node.target not in {"clone", "size", "dim"}
    if node.target is operator.getitem:
        return isinstance(_value(node.args[0]), torch.Tensor)
    return node.op == "call_function" and getattr(node.target, "__name__", "") in _VIEWS


def _value(node: Any) -> Any:
    return node.meta.get("example_value") if isinstance(node, Node) else None


def _join(graph: Graph, update: Node, norm: Node, ops: NormOps, rounding: Rounding) -> None:
    """Put one call in place of an update and its norm."""
    hidden, residual, *where = update.args
    given = _arguments(norm)
    in_place = not _has_results(norm)
    how = Rounding.KERNEL if in_place else rounding
    form = ops.in_place if in_place else ops.functional
    call = form.by_site if len(where) == 1 else form.by_block
    arguments = (hidden, residual, given["weight"], given["epsilon"], int(how), *where)
    with graph.inserting_before(norm):
        node = graph.call_function(call, arguments)
    node.meta = dict(norm.meta)
    norm.replace_all_uses_with(node)
    graph.erase_node(norm)
    graph.erase_node(update)
