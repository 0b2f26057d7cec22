"""Columns that provably change nothing go, and sites where no column is left.

    before  %4 = update(%0, [v, u], [%2, %3], [0·b0, (clamp(p, -1, 2.5) − p)·b1 seeing 0])
    after   %3 = update(%0, [u], [%2], [(clamp(p, -1, 2.5) − p)·b0])

Needs: fused updates. Keeps: every column that could change a stream, wide bounds included.
Provable: scale 0, strength 0, bounds open on both sides, a selector that holds for no token; a
gate that weighs nothing that is left.
Refuses: nothing; what was dropped is remarked.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from interv.document.selectors import satisfiable
from interv.passes.graph.canonical import probe, update
from interv.passes.graph.column import Form, Kind
from interv.passes.graph.context import Context
from interv.passes.graph.ir import (
    Graph,
    Node,
    Origin,
    call,
    copied,
    is_op,
    ops_of,
    selector_of,
    tidy,
)
from interv.passes.graph.ops import write


def drop_dead(graph: Graph, ctx: Context) -> Graph:
    """Drop columns and sites without effect, later sites first: they may free earlier gates."""
    new = copied(graph)
    for end in reversed([node for node in ops_of(new) if is_op(node, write)]):
        node: Any = end.args[2]
        probes = [user for user in node.args[0].users if is_op(user, probe)]
        wanted = {one.args[4] for one in probes if one.users}
        why = _reasons(node, wanted)
        for reason, where in zip(why, node.meta["columns"], strict=True):
            if reason is not None:
                ctx.remark(node, f"dropped: {reason}", where=where)
        live = [j for j, reason in enumerate(why) if reason is None]
        if len(live) == len(why):
            continue
        if live:
            _keep(new, end, node, live, [one for one in probes if one.users])
        else:
            before: Any = end.args[0]
            end.replace_all_uses_with(before)
            new.erase_node(end)
        for dead in [*(one for one in probes if not one.users), node]:
            new.erase_node(dead)
    return tidy(new)


def _reasons(node: Node, wanted: set[Any]) -> list[str | None]:
    """Return why each column of an update has no effect, None for those that have."""
    args: Any = node.args
    why = [_dead(node, j) for j in range(len(args[3]))]
    wanted = {*wanted}
    # From the last on: what weighs a gate comes before it.
    for j, form in reversed([*enumerate(args[3])]):
        if form.kind == Kind.GATE and j not in wanted:
            why[j] = why[j] or "its gate weighs nothing"
        if why[j] is None:
            wanted.add(form.gate)
    return why


def _dead(node: Node, j: int) -> str | None:
    args: Any = node.args
    form: Form = args[3][j]
    if not satisfiable(selector_of(args[2][j])):
        return "its selector holds for no token"
    match form.kind:
        case Kind.GATE | Kind.JOINT:
            return None
        case Kind.LINEAR:
            return "scale 0" if form.alpha == 0 else None
        case Kind.KEEP_NORM:
            idle = form.alpha == form.strength == 0
            return ("scale 0" if form.a < 0 else "strength 0") if idle else None
        case Kind.REPLACE | Kind.ROTATE:
            return "strength 0" if form.strength == 0 else None
    if form.alpha == form.beta == form.strength == 0:
        return "strength 0" if form.low == 0 or form.a == form.b else "scale 0"
    if form.alpha == form.beta == 0 and form.low == -math.inf and form.high == math.inf:
        return "its bounds are open"
    return None


def _keep(graph: Graph, end: Node, node: Node, live: list[int], probes: list[Node]) -> None:
    """Rebuild an update with the columns `live`, the others and their directions left out."""
    args: Any = node.args
    old = [args[3][j] for j in live]
    rows = list(dict.fromkeys(row for form in old for row in (form.a, form.b) if row >= 0))
    columns = tuple(
        replace(
            form,
            a=rows.index(form.a) if form.a >= 0 else -1,
            b=rows.index(form.b) if form.b >= 0 else -1,
            gate=live.index(form.gate) if form.gate >= 0 else -1,
            sees=sum(1 << new for new, was in enumerate(live) if form.sees >> was & 1),
        )
        for form in old
    )
    of_columns: tuple[tuple[Origin, ...], ...] = tuple(node.meta["columns"][j] for j in live)
    every = sorted({origin for one in of_columns for origin in one}, key=lambda one: one.order)
    kept = (
        args[0],
        tuple(args[1][row] for row in rows),
        tuple(args[2][j] for j in live),
        columns,
    )
    with graph.inserting_before(end):
        made = call(graph, update, *kept, origins=tuple(every), columns=of_columns)
    for one in probes:
        number: Any = one.args[4]
        one.args = (*kept, live.index(number))
    end.args = (*end.args[:2], made)
