"""Adds for the same tokens at the same site become one add.

    before  %3 = steer(%0, calm, 1.5, %2)   %6 = steer(%3, formal, 0.5, %2)
    after   %5 = steer(%0, 1.5·calm + 0.5·formal, 1, %2)

Needs: constants. Keeps: the sum, to rounding in float64, and what every edit and gate between the
two reads: an add moves over another add, and over what reads the stream only where the two cannot
select one token, or where both read the original. Gated adds fold where they have one gate.
Refuses: nothing; what it leaves is remarked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interv.passes.constants import Constant, weighted_sum
from interv.passes.context import Context
from interv.passes.ir import (
    Chain,
    Graph,
    Node,
    call,
    chains,
    copied,
    gate_of,
    is_op,
    merge_origins,
    origins,
    selector_of,
    statement_name,
    tidy,
)
from interv.passes.ops import EDITS, READERS, constant, gate, steer
from interv.passes.show import places
from interv.selectors import selector_text
from interv.wording import number_text


def fold_adds(graph: Graph, ctx: Context) -> Graph:
    """Fold steers into the earliest steer of their site that they can join."""
    new = copied(graph)
    for chain in chains(new):
        groups = _groups(chain, ctx)
        for group in groups:
            if len(group) > 1:
                _fold(new, group, ctx)
        _relink(chain, [group[0] for group in groups])
    return tidy(new)


def _groups(chain: Chain, ctx: Context) -> list[list[Node]]:
    """Return the edits of a site in order, each with the later steers that join it."""
    groups: list[list[Node]] = []
    for j, edit in enumerate(chain.edits):
        joined = _joins(chain, j, groups, ctx) if is_op(edit, steer) else None
        if joined is None:
            groups.append([edit])
        else:
            joined.append(edit)
    return groups


def _joins(chain: Chain, j: int, groups: list[list[Node]], ctx: Context) -> list[Node] | None:
    """Find the group that steer j can join; remark why not where there is one it cannot."""
    edit, why = chain.edits[j], ""
    for group in groups:
        if not is_op(group[0], steer):
            continue
        first = group[0]
        if not _one_gate(first, edit):
            why = why or f"not folded into {_where(first)}: they have different gates"
            continue
        if not ctx.same(selector_of(first), selector_of(edit)):
            why = why or (
                f"not folded into {_where(first)}: it applies to other tokens "
                f"({selector_text(selector_of(first))} · {selector_text(selector_of(edit))})"
            )
            continue
        block = _reader_between(chain, chain.edits.index(first), j, ctx)
        if block is None:
            return group
        between = f"{statement_name(block)} {_where(block)}"
        why = f"not folded into {_where(first)}: {between} reads between"
    if why:
        ctx.remark(edit, why, done=False)
    return None


def _one_gate(first: Node, edit: Node) -> bool:
    gates = gate_of(first), gate_of(edit)
    return gates[0] is gates[1]


def _reader_between(chain: Chain, i: int, j: int, ctx: Context) -> Node | None:
    """Return what reads the stream after edit i and before edit j where both can apply."""
    if chain.together:
        return None
    mine = selector_of(chain.edits[j])
    readers = [edit for edit in chain.edits[i + 1 : j] if is_op(edit, *READERS)]
    readers += [user for edit in chain.edits[i:j] for user in edit.users if is_op(user, gate)]
    return next((one for one in readers if ctx.overlap(selector_of(one), mine)), None)


def _where(node: Node) -> str:
    return places(origin.where for origin in origins(node))


def _fold(graph: Graph, group: Sequence[Node], ctx: Context) -> None:
    """Put the sum of a group into its first steer; the caller links the others out."""
    first = group[0]
    nodes: list[Any] = [edit.args[1] for edit in group]
    scales: list[Any] = [edit.args[2] for edit in group]
    first.meta["origins"] = merge_origins(*group)
    if all(node is nodes[0] for node in nodes):
        # The bank row stays the vector itself, whatever the scales are.
        scale: float = sum(scales)
        said = f"{len(group)} adds of one direction fold: scale {number_text(scale)}"
    else:
        alike = all(one == scales[0] for one in scales)
        common = scales[0] if alike else 1.0
        total = _sum([1.0] * len(scales) if alike else scales, nodes)
        with graph.inserting_before(first):
            nodes[0] = call(graph, constant, total, origins=merge_origins(*group))
        scale = common if total.array.any() else 0.0
        said = f"{len(group)} adds fold into one"
    first.args = (first.args[0], nodes[0], scale, first.args[3])
    ctx.remark(first, said if scale else f"{said}; they cancel out")


def _sum(weights: Sequence[float], nodes: Sequence[Any]) -> Constant:
    values: list[Constant] = [node.args[0] for node in nodes]
    terms = [
        value.label if weight == 1 else f"{number_text(weight)}·{value.label}"
        for weight, value in zip(weights, values, strict=True)
    ]
    return Constant(" + ".join(terms), weighted_sum(weights, [value.array for value in values]))


def _relink(chain: Chain, kept: Sequence[Node]) -> None:
    """Chain the edits that are left, leaving out those folded into others."""
    for edit in chain.edits:
        if edit not in kept:
            for reader in [user for user in edit.users if is_op(user, gate)]:
                reader.replace_input_with(edit, _before(edit, kept))
    if chain.together:
        total: Any = chain.write.args[2]
        total.args = (chain.read, tuple(kept))
        return
    h = chain.read
    for edit in kept:
        edit.args = (h, *edit.args[1:])
        h = edit
    chain.write.args = (*chain.write.args[:2], h)


def _before(edit: Node, kept: Sequence[Node]) -> Any:
    """Return what a gate behind a folded edit reads now: the last edit before it that is left."""
    while is_op(edit, *EDITS) and edit not in kept:
        edit = edit.args[0]  # type: ignore[assignment]
    return edit
