"""Caps that can meet become, under `conflict joint`, what holds all of them at the least change.

    before  %3 = cap(%0, û, 1, 1, 1, all)   %6 = cap(%3, ŵ, −1, 2.5, 1, prompt)
    after   %5 = cap(%0, û, 1, 1, 1, not prompt)
            %8 = cap(%5, û, 1, 1, 1, prompt)   %9 = cap(%8, ŵ ⊥ û, −1.2, 2.3, 1, prompt)
    or      %9 = joint(%0, [û, ŵ], [−1, −1], [2.5, 2.5], prompt)   where no pin takes them apart

Needs: constants. Keeps: edits that meet no other. The tokens of a site are split into those for
which the same statements hold, and each such set of statements is solved on its own.
Refuses: edits that are no caps of strength 1 (E412), more than 4 selectors that meet at a site
(E413), caps that cannot all hold (E414), and directions that sweeps cannot take apart (E415).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from types import MappingProxyType
from typing import Any, TypeAlias

from interv.document.selectors import satisfiable
from interv.document.spec import And, Everything, Not, Selector
from interv.errors import raise_all
from interv.passes.caps.bounds import Bound, Done, Unsolvable
from interv.passes.caps.joint_errors import Wrong, bounds_of, refused, too_many, unsolvable
from interv.passes.caps.joint_problem import Solved, solve
from interv.passes.graph.context import Context
from interv.passes.graph.directions import Constant
from interv.passes.graph.ir import (
    Chain,
    Graph,
    Node,
    Origin,
    call,
    chains,
    copied,
    input_node,
    is_op,
    mask_of,
    merge_origins,
    ops_of,
    selector_of,
    tidy,
)
from interv.passes.graph.ops import cap, constant, gate, joint
from interv.passes.graph.selector_masks import select
from interv.passes.graph.show import places

_SAID: Mapping[Done, str] = MappingProxyType(
    {
        "merged": "bounds the direction of {others} too: the bounds are intersected",
        "orthogonalised": "made orthogonal to the pins of {others}",
        "pinned": "leaves one value only, together with {others}: a pin",
        "open": "left out: its bounds are open",
        "fixed": "left out: {others} fix what it bounds, within its bounds",
        "implied": "left out: it holds wherever {others} do",
        "swept": "solved together by sweeps, until they hold for each token",
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class _Region:
    """The tokens for which exactly these edits hold, of those that can meet at a site."""

    selector: Selector
    edits: tuple[Node, ...]


_Plan: TypeAlias = Sequence[tuple[_Region, Solved]]


def solve_joint(graph: Graph, ctx: Context) -> Graph:
    """Replace caps that can meet by what solves them together, under `conflict joint`."""
    if ctx.conflict != "joint":
        return graph
    new = copied(graph)
    met = [(chain, edits) for chain in chains(new) if (edits := _meeting(chain, ctx))]
    classes = [_classes(edits, ctx) for _, edits in met]
    sites = [(chain.site, edits) for chain, edits in met]
    raise_all([*refused(sites, ctx), *too_many(sites, classes, ctx)])
    wrong: list[Wrong] = []
    for (chain, edits), kinds in zip(met, classes, strict=True):
        plan: list[tuple[_Region, Solved]] = []
        for region in _regions(edits, kinds, ctx):
            try:
                plan.append((region, solve([_bound(j, e) for j, e in enumerate(region.edits)])))
            except Unsolvable as found:
                wrong.append(Wrong(chain.site, region.edits, found))
        _rebuild(new, chain, edits, plan, ctx)
    raise_all(unsolvable(wrong, ctx))
    return tidy(new)


def _meeting(chain: Chain, ctx: Context) -> tuple[Node, ...]:
    """Return the edits of a site that can apply to a token with another one."""
    return tuple(
        edit
        for edit in chain.edits
        if any(
            ctx.overlap(selector_of(edit), selector_of(other))
            for other in chain.edits
            if other is not edit
        )
    )


def _bound(number: int, edit: Node) -> Bound:
    return Bound(_constant(edit).array, *bounds_of(edit), of=(number,))


def _constant(edit: Node) -> Constant:
    node: Any = edit.args[1]
    value: Constant = node.args[0]
    return value


def _classes(edits: Sequence[Node], ctx: Context) -> tuple[Selector, ...]:
    """Return the selectors of edits, of those that hold for the same tokens the first."""
    found: list[Selector] = []
    for edit in edits:
        if not any(ctx.same(one, selector_of(edit)) for one in found):
            found.append(selector_of(edit))
    return tuple(found)


def _regions(
    edits: Sequence[Node], classes: Sequence[Selector], ctx: Context
) -> tuple[_Region, ...]:
    """Split tokens by which of the selectors hold; leave out what no token can be."""
    found = []
    for holds in product((True, False), repeat=len(classes)):
        inside = [one for one, held in zip(classes, holds, strict=True) if held]
        outside = [one for one, held in zip(classes, holds, strict=True) if not held]
        selector = holding(inside, outside, ctx)
        if selector is not None:
            there = (e for e in edits if any(ctx.same(selector_of(e), one) for one in inside))
            found.append(_Region(selector, tuple(there)))
    return tuple(found)


def holding(
    inside: Sequence[Selector], outside: Sequence[Selector], ctx: Context
) -> Selector | None:
    """Return shortly that all of some selectors hold and none of others; None where none can."""
    if not inside:
        return None
    terms: list[Selector] = [
        one
        for one in inside
        if not any(other is not one and ctx.implies(other, one) for other in inside)
    ]
    if not satisfiable(_all_of([*terms, *(Not(term=one) for one in outside)])):
        return None
    within = _all_of(terms)
    for one in outside:
        wider = any(other is not one and ctx.implies(one, other) for other in outside)
        if not wider and ctx.overlap(within, one):
            terms.append(Not(term=one))
    kept = [one for one in terms if not isinstance(one, Everything)]
    return _all_of(kept or terms)


def _all_of(terms: Sequence[Selector]) -> Selector:
    return And(terms=tuple(terms)) if len(terms) > 1 else terms[0]


def _rebuild(graph: Graph, chain: Chain, edits: Sequence[Node], plan: _Plan, ctx: Context) -> None:
    """Put what was solved where the first of the edits was, and leave the edits out.

    A gate of another site that read the stream after one of them reads it after all of them.
    """
    h = chain.read
    for edit in chain.edits:
        if edit is edits[0]:
            place = _Place(graph, edit)
            with graph.inserting_before(edit):
                for region, solved in plan:
                    h = _apply(place, h, region, solved)
                    _remark(h, region, solved, ctx)
        if edit in edits:
            for user in [user for user in edit.users if is_op(user, gate)]:
                user.args = (h, *user.args[1:])
        else:
            edit.args = (h, *edit.args[1:])
            h = edit
    chain.write.args = (*chain.write.args[:2], h)


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where in a graph a site's solution goes, and the directions that were made there."""

    graph: Graph
    before: Node
    made: dict[bytes, Node] = field(default_factory=dict)


def _apply(place: _Place, h: Node, region: _Region, solved: Solved) -> Node:
    """Append a region's caps and blocks to a stream."""
    mask = _mask(place, region)
    for one in solved.caps:
        args = (_row(place, one, region), one.low, one.high, 1.0, mask)
        h = call(place.graph, cap, h, *args, origins=_origins(region, (one,)))
    for block in solved.blocks:
        rows = tuple(_row(place, one, region) for one in block)
        lows, highs = tuple(one.low for one in block), tuple(one.high for one in block)
        every = _origins(region, block)
        h = call(place.graph, joint, h, rows, lows, highs, mask, origins=every)
    return h


def _remark(h: Node, region: _Region, solved: Solved, ctx: Context) -> None:
    for note in solved.notes:
        others = merge_origins(*(region.edits[i] for i in note.others))
        said = _SAID[note.done].format(others=places(origin.where for origin in others))
        ctx.remark(h, said, where=merge_origins(*(region.edits[i] for i in note.of)))


def _origins(region: _Region, bounds: Sequence[Bound]) -> tuple[Origin, ...]:
    return merge_origins(*(region.edits[i] for one in bounds for i in (*one.of, *one.off)))


def _mask(place: _Place, region: _Region) -> Node:
    """Return the select node of a region's tokens, one that is there already if there is."""
    graph, ops = place.graph, ops_of(place.graph)
    same = [node for node in ops if is_op(node, select) and node.args[1] == region.selector]
    if same:
        node = _early(place, same[0])
    else:
        # Before all ops, so that every site can use it.
        with graph.inserting_before(ops[0]):
            node = call(graph, select, input_node(graph, "tokens"), region.selector)
    node.meta["origins"] = merge_origins(node, *(mask_of(edit) for edit in region.edits))
    return node


def _row(place: _Place, one: Bound, region: _Region) -> Node:
    """Return the node of a bound's direction: that of its statement, or a new one."""
    edit = region.edits[one.of[0]]
    node: Any = edit.args[1]
    if not one.off:
        return _early(place, node)
    key = one.row.tobytes()
    if key not in place.made:
        others = ", ".join(dict.fromkeys(_constant(region.edits[i]).label for i in one.off))
        value = Constant(f"{_constant(edit).label} ⊥ {others}", one.row)
        every = _origins(region, (one,))
        place.made[key] = call(place.graph, constant, value, origins=every)
    return place.made[key]


def _early(place: _Place, node: Node) -> Node:
    """Move a node that needs no stream in front of all ops where it comes too late."""
    if place.before < node:
        ops_of(place.graph)[0].prepend(node)
    return node
