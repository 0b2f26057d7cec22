"""Adds for the same tokens at the same site become one add.

    before  %3 = steer(%0, calm, 1.5, %2)   %6 = steer(%3, formal, 0.5, %2)
    after   %5 = steer(%0, 1.5·calm + 0.5·formal, 1, %2)

Needs: constants. Keeps: the sum, to rounding in float64, and what every edit and gate between the
two reads: an add moves over another add, and over what reads the stream only where the two cannot
select one token, or where both read the original. Gated adds fold where they have one gate,
decaying ones where they decay alike.
Refuses: nothing; what it leaves is remarked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from interv.document.selectors import selector_text
from interv.document.wording import number_text
from interv.passes.graph.context import Context
from interv.passes.graph.directions import Constant, weighted_sum
from interv.passes.graph.ir import (
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
    rate_of,
    selector_of,
    statement_name,
    tidy,
)
from interv.passes.graph.ops import EDITS, READERS, constant, gate, steer
from interv.passes.graph.show import places


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
    readers = _readers(chain)
    places = {edit: i for i, edit in enumerate(chain.edits)}
    for edit in chain.edits:
        joined = _joins(edit, places, groups, readers, ctx) if is_op(edit, steer) else None
        if joined is None:
            groups.append([edit])
        else:
            joined.append(edit)
    return groups


def _joins(
    edit: Node,
    places: Mapping[Node, int],
    groups: list[list[Node]],
    readers: Sequence[tuple[float, Node]],
    ctx: Context,
) -> list[Node] | None:
    """Find the group that a steer can join; remark why not where there is one it cannot."""
    why = ""
    for group in groups:
        if not is_op(group[0], steer):
            continue
        first = group[0]
        if gate_of(first) is not gate_of(edit):
            why = why or f"not folded into {_where(first)}: they have different gates"
            continue
        if rate_of(first) != rate_of(edit):
            why = why or f"not folded into {_where(first)}: they decay differently"
            continue
        if not ctx.same(selector_of(first), selector_of(edit)):
            why = why or (
                f"not folded into {_where(first)}: it applies to other tokens "
                f"({selector_text(selector_of(first))} · {selector_text(selector_of(edit))})"
            )
            continue
        between = [one for place, one in readers if places[first] < place < places[edit]]
        mine = selector_of(edit)
        block = next((one for one in between if ctx.overlap(selector_of(one), mine)), None)
        if block is None:
            return group
        reader = f"{statement_name(block)} {_where(block)}"
        why = f"not folded into {_where(first)}: {reader} reads between"
    if why:
        ctx.remark(edit, why, done=False)
    return None


def _readers(chain: Chain) -> list[tuple[float, Node]]:
    """Return what reads the stream at a site and its place there, gates behind what they read."""
    if chain.together:
        return []
    edits = [(float(i), one) for i, one in enumerate(chain.edits) if is_op(one, *READERS)]
    gates = [
        (i + 0.5, user)
        for i, edit in enumerate(chain.edits)
        for user in edit.users
        if is_op(user, gate)
    ]
    return edits + gates


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
    left = set(kept)
    for edit in chain.edits:
        if edit not in left:
            for reader in [user for user in edit.users if is_op(user, gate)]:
                reader.replace_input_with(edit, _before(edit, left))
    if chain.together:
        total: Any = chain.write.args[2]
        total.args = (chain.read, tuple(kept))
        return
    h = chain.read
    for edit in kept:
        edit.args = (h, *edit.args[1:])
        h = edit
    chain.write.args = (*chain.write.args[:2], h)


def _before(edit: Node, kept: Collection[Node]) -> Any:
    """Return what a gate behind a folded edit reads now: the last edit before it that is left."""
    while is_op(edit, *EDITS) and edit not in kept:
        edit = edit.args[0]  # type: ignore[assignment]
    return edit
