"""Columns that provably change nothing go, and sites where no column is left.

    before  %4 = update(%0, [v, u], [%2, %3], [0·b0, (clamp(p, -1, 2.5) − p)·b1 seeing 0])
    after   %3 = update(%0, [u], [%2], [(clamp(p, -1, 2.5) − p)·b0])

Needs: fused updates. Keeps: every column that could change a stream, wide bounds included.
Provable: scale 0, strength 0, bounds open on both sides, a selector that holds for no token.
Refuses: nothing; what was dropped is remarked.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from interv.passes.columns import Form
from interv.passes.context import Context
from interv.passes.ir import Graph, Node, Origin, call, copied, is_op, ops_of, tidy
from interv.passes.ops import update, write
from interv.selectors import satisfiable


def drop_dead(graph: Graph, ctx: Context) -> Graph:
    """Drop columns and sites without effect."""
    new = copied(graph)
    for end in [node for node in ops_of(new) if is_op(node, write)]:
        node: Any = end.args[2]
        why = [_dead(node, j) for j in range(len(node.args[3]))]
        for reason, where in zip(why, node.meta["columns"], strict=True):
            if reason is not None:
                ctx.remark(node, f"dropped: {reason}", where=where)
        live = [j for j, reason in enumerate(why) if reason is None]
        if not live:
            before: Any = end.args[0]
            end.replace_all_uses_with(before)
        elif len(live) < len(why):
            _keep(new, end, node, live)
    return tidy(new)


def _dead(node: Node, j: int) -> str | None:
    args: Any = node.args
    form: Form = args[3][j]
    if not satisfiable(args[2][j].args[1]):
        return "its selector holds for no token"
    if form.alpha == form.beta == form.strength == 0:
        return "scale 0" if form.a < 0 else "strength 0"
    if form.alpha == form.beta == 0 and form.low == -math.inf and form.high == math.inf:
        return "its bounds are open"
    return None


def _keep(graph: Graph, end: Node, node: Node, live: list[int]) -> None:
    """Rebuild an update with the columns `live`, the others and their directions left out."""
    args: Any = node.args
    old = [args[3][j] for j in live]
    rows = list(dict.fromkeys(row for form in old for row in (form.a, form.b) if row >= 0))
    columns = tuple(
        replace(
            form,
            a=rows.index(form.a) if form.a >= 0 else -1,
            b=rows.index(form.b),
            sees=sum(1 << new for new, was in enumerate(live) if form.sees >> was & 1),
        )
        for form in old
    )
    of_columns: tuple[tuple[Origin, ...], ...] = tuple(node.meta["columns"][j] for j in live)
    every = sorted({origin for one in of_columns for origin in one}, key=lambda one: one.order)
    with graph.inserting_before(end):
        kept = call(
            graph,
            update,
            args[0],
            tuple(args[1][row] for row in rows),
            tuple(args[2][j] for j in live),
            columns,
            origins=tuple(every),
            columns=of_columns,
        )
    end.args = (*end.args[:2], kept)
