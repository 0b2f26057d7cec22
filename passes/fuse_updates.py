"""All edits of one site become one rank-K update: one read of the stream and one write.

    before  %3 = steer(%0, v, 1.5, %2)   %6 = cap(%3, u, -1, 2.5, 1, %5)
    after   %4 = update(%0, [v, u], [%2, %3], [1.5·b0, (clamp(p, -1, 2.5) − p)·b1 seeing 0])

Needs: constants. Keeps: what every edit reads, by the Gram of the directions: column j reads
`p_j + Σ (a_j·b_i) c_i` over the earlier columns that it sees, which are those that can apply to
the same token, or none where all read the original. Refuses: nothing; any sequence of edits fuses.
"""

from __future__ import annotations

from typing import Any

from interv.passes.columns import Form
from interv.passes.context import Context
from interv.passes.ir import (
    Chain,
    Graph,
    Node,
    call,
    chains,
    copied,
    is_op,
    mask_of,
    merge_origins,
    origins,
    selector_of,
    tidy,
)
from interv.passes.ops import READERS, ablate, cap, steer, update


def fuse_updates(graph: Graph, ctx: Context) -> Graph:
    """Replace the edits of every site by one update with its columns in program order."""
    new = copied(graph)
    for chain in chains(new):
        rows = tuple(dict.fromkeys(_direction(edit) for edit in chain.edits))
        columns = tuple(_column(chain, j, rows, ctx) for j in range(len(chain.edits)))
        masks = tuple(mask_of(edit) for edit in chain.edits)
        with new.inserting_before(chain.write):
            node = call(
                new,
                update,
                chain.read,
                rows,
                masks,
                columns,
                origins=merge_origins(*chain.edits),
                columns=tuple(origins(edit) for edit in chain.edits),
            )
        chain.write.args = (*chain.write.args[:2], node)
        one = "1 edit of a site becomes an update"
        many = f"{len(columns)} edits of a site become one update: one read, one write"
        ctx.remark(node, one if len(columns) == 1 else many)
    return tidy(new)


def _direction(edit: Node) -> Node:
    node = edit.args[1]
    assert isinstance(node, Node)
    return node


def _column(chain: Chain, j: int, rows: tuple[Node, ...], ctx: Context) -> Form:
    edit = chain.edits[j]
    row, args = rows.index(_direction(edit)), edit.args
    numbers: list[Any] = list(args[2:-1])
    if is_op(edit, steer):
        return Form(-1, row, alpha=numbers[0])
    sees = _sees(chain, j, ctx)
    if is_op(edit, cap):
        low, high, strength = numbers
        return Form(row, row, strength=strength, low=low, high=high, sees=sees)
    assert is_op(edit, ablate)
    return Form(row, row, strength=numbers[0], low=0.0, high=0.0, sees=sees)


def _sees(chain: Chain, j: int, ctx: Context) -> int:
    if chain.together or not is_op(chain.edits[j], *READERS):
        return 0
    mine = selector_of(chain.edits[j])
    earlier = (selector_of(edit) for edit in chain.edits[:j])
    return sum(1 << i for i, theirs in enumerate(earlier) if ctx.overlap(theirs, mine))
