"""What reads the same value in the same way is read once.

    before  %4 = gate(%0, probe, 8, 0.5, %3)   %9 = gate(%0, probe, 8, 0.5, %3)
    after   %4 = gate(%0, probe, 8, 0.5, %3)   both edits have this gate

Needs: constants. Keeps: every value. Refuses: nothing; gates that differ only in their tokens
stay apart, and are remarked.
"""

from __future__ import annotations

from interv.document.selectors import selector_text
from interv.passes.graph.context import Context
from interv.passes.graph.ir import (
    Graph,
    Node,
    copied,
    is_op,
    merge_origins,
    ops_of,
    origins,
    rate_of,
    selector_of,
    tidy,
)
from interv.passes.graph.ops import gate
from interv.passes.graph.show import places


def share_reads(graph: Graph, ctx: Context) -> Graph:
    """Let edits whose gates read one value with one probe have one gate."""
    new = copied(graph)
    kept: dict[tuple[object, ...], list[Node]] = {}
    for node in [one for one in ops_of(new) if is_op(one, gate)]:
        alike = kept.setdefault((*node.args[:-1], rate_of(node)), [])
        same = [one for one in alike if ctx.same(selector_of(one), selector_of(node))]
        if same:
            same[0].meta["origins"] = merge_origins(same[0], node)
            node.replace_all_uses_with(same[0])
            ctx.remark(same[0], "one gate, read once")
        elif alike:
            ctx.remark(node, _apart(alike[0], node), done=False)
        if not same:
            alike.append(node)
    return tidy(new)


def _apart(first: Node, node: Node) -> str:
    where = places(origin.where for origin in origins(first))
    tokens = f"{selector_text(selector_of(first))} · {selector_text(selector_of(node))}"
    return f"its gate is not shared with {where}: it applies to other tokens ({tokens})"
