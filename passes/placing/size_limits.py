"""What is too large for one engine is refused before it is compiled: its size bounds the work.

Passes compare the edits of a site with each other, and their selectors. No more of either than an
engine could hold get that far, so that the time a program takes grows with its statements alone.
`place` counts again: folding makes one edit of several, and policies make selectors.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from interv.document.spec import Selector
from interv.errors import IntervError, raise_all
from interv.passes.graph.context import Context
from interv.passes.graph.ir import (
    Chain,
    Graph,
    Node,
    chains,
    gate_of,
    is_op,
    ops_of,
    origins,
    selector_of as selector_of_edit,
)
from interv.passes.graph.no_effect import no_effect
from interv.passes.graph.ops import EDITS, emit, steer
from interv.passes.placing.plan import MAX_COLUMNS, MAX_SELECTORS


def refuse_oversize(graph: Graph, ctx: Context) -> None:
    """Raise E410 for too many selectors of a program, E411 for too many edits at a site.

    Only what is sure to be left counts: adds fold, and edits of scale 0 are dropped.
    """
    errors = list(_selectors(graph))
    if ctx.conflict in ("sequential", "sum"):
        errors += _first(_edits(chain, ctx.program) for chain in chains(graph))
    raise_all(errors)


def too_many_selectors(count: int, over: Node) -> IntervError:
    """Return E410 at the first node that is one too many."""
    return IntervError(
        "E410",
        f"{count} different selectors are used, {MAX_SELECTORS} are possible",
        origins(over)[0].span,
        "one too many",
        helps=["put programs that are not used together into engines of their own"],
    )


def _first(found: Iterator[Iterator[IntervError]]) -> list[IntervError]:
    return [error for errors in found for error in errors][:1]


def _selectors(graph: Graph) -> Iterator[IntervError]:
    first: dict[Selector, Node] = {}
    for node in ops_of(graph):
        if is_op(node, *EDITS) and no_effect(node) is None:
            first.setdefault(selector_of_edit(node), node)
        elif is_op(node, emit):
            first.setdefault(selector_of_edit(node.args[2]), node)  # type: ignore[arg-type]
    if len(first) > MAX_SELECTORS:
        yield too_many_selectors(len(first), list(first.values())[MAX_SELECTORS])


def _edits(chain: Chain, program: str) -> Iterator[IntervError]:
    """Count a site's edits that do not fold, and the different gates that weigh edits."""
    kept: dict[Hashable, Node] = {}
    gates: dict[Hashable, Node] = {}
    for edit in chain.edits:
        if no_effect(edit) is not None:
            continue
        if not is_op(edit, steer):
            kept[edit] = edit
        if (own := gate_of(edit)) is not None:
            gates.setdefault(own.args[1:], edit)
    for found, noun in ((kept, "edits"), (gates, "gates")):
        if len(found) > MAX_COLUMNS:
            yield IntervError(
                "E411",
                f"program '{program}' has {len(found)} {noun} at {chain.site},"
                f" {MAX_COLUMNS} are possible",
                origins(list(found.values())[MAX_COLUMNS])[0].span,
                "one too many",
            )
