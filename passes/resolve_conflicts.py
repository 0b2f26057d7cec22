"""Two edits of one site whose selectors can both hold for a token are settled by policy.

    conflict error       refused, with both statements shown
    conflict priority    the later selector loses the overlap:  all  ->  all and not prompt
    conflict sequential  each reads what the earlier wrote; the graph stays as it is
    conflict sum         %9 = combine(%0, [%3, %6])   all read the original %0
    conflict joint       left to `solve_joint`

Needs: resolved sites. Keeps: the meaning of the policy, for every token. Refuses: a conflict
under `conflict error`, and what is too large to be compared (`sizes`). Until here a graph says
"sequential" whatever the program's policy is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from interv.document.selectors import selector_text
from interv.document.sites import Site
from interv.document.spec import And, Everything, Not, Selector
from interv.document.wording import sites_text
from interv.errors import IntervError, Label, raise_all
from interv.passes.graph.context import Context
from interv.passes.graph.ir import (
    Chain,
    Graph,
    Node,
    Origin,
    call,
    chains,
    copied,
    decay_of,
    gate_of,
    input_node,
    is_op,
    mask_of,
    merge_origins,
    ops_of,
    origins,
    selector_of,
    statement_name,
    tidy,
)
from interv.passes.graph.ops import READERS, combine, decay, gate
from interv.passes.graph.selector_masks import select
from interv.passes.graph.show import places
from interv.passes.placing.size_limits import refuse_oversize

# Of the conflicts at one site so many are told; pairs grow with the square of the statements.
MOST_CONFLICTS = 100


def resolve_conflicts(graph: Graph, ctx: Context) -> Graph:
    """Apply the program's policy; raise E401 for each conflict under `conflict error`.

    Raises E410 and E411 for more selectors or edits than an engine could hold.
    """
    refuse_oversize(graph, ctx)
    new = copied(graph)
    match ctx.conflict:
        case "error":
            found = {
                one.site: tuple(islice(_overlaps(one, ctx), MOST_CONFLICTS)) for one in chains(new)
            }
            raise_all(_conflicts(found, ctx))
        case "priority":
            _cut(new, ctx)
        case "sum":
            _add_up(new, ctx)
        case "sequential":
            _note_order(new, ctx)
    return tidy(new)


def _overlaps(
    chain: Chain, ctx: Context, wanted: Callable[[Node], bool] = lambda edit: True
) -> Iterator[tuple[Node, Node]]:
    """Yield the edits that can apply to one token, an earlier and a later that is `wanted`."""
    selectors = [selector_of(edit) for edit in chain.edits]
    for j, later in enumerate(chain.edits):
        if not wanted(later):
            continue
        met = {one: ctx.overlap(one, selectors[j]) for one in dict.fromkeys(selectors[:j])}
        for earlier, selector in zip(chain.edits[:j], selectors, strict=False):
            if met[selector]:
                yield earlier, later


def _conflicts(
    pairs: Mapping[Site, tuple[tuple[Node, Node], ...]], ctx: Context
) -> list[IntervError]:
    """Make one error for each pair of statements, however many sites they meet at."""
    met: dict[tuple[int, int], list[Site]] = {}
    nodes: dict[tuple[int, int], tuple[Node, Node]] = {}
    for site, found in pairs.items():
        for earlier, later in found:
            key = (origins(earlier)[0].order, origins(later)[0].order)
            met.setdefault(key, []).append(site)
            nodes[key] = (earlier, later)
    return [_conflict(*nodes[key], met[key], ctx) for key in sorted(met)]


def _conflict(earlier: Node, later: Node, sites: list[Site], ctx: Context) -> IntervError:
    first, second = origins(earlier)[0], origins(later)[0]
    said = f"{statement_name(earlier)} ({first.where}) and {statement_name(later)} ({second.where})"
    where = sites_text(sites)
    return IntervError(
        "E401",
        f"two edits of program '{ctx.program}' meet at {where}: {said}",
        second.span,
        "can apply to a token that the earlier one edits",
        more=[Label(first.span, "listed first")] if first.span else [],
        notes=[
            f"their selectors: {selector_text(selector_of(earlier))}"
            f"  ·  {selector_text(selector_of(later))}",
            "policies: error, priority, sequential, sum, joint",
        ],
        helps=["say 'conflict sequential' to let the later one read what the earlier wrote"],
    )


def _cut(graph: Graph, ctx: Context) -> None:
    """Take from each selector what the earlier ones at its site can hold for."""
    masks: dict[Selector, Node] = {}
    for node in ops_of(graph):
        if is_op(node, select):
            masks.setdefault(node.args[1], node)  # type: ignore[arg-type]
    alike: dict[Node, dict[Node, None]] = {}  # what each new mask stands for
    for chain in chains(graph):
        was = [selector_of(edit) for edit in chain.edits]
        first: dict[Selector, int] = {}
        for j, edit in enumerate(chain.edits):
            # Of several with one selector the first takes it all.
            lost = [first[one] for one in first if ctx.overlap(one, was[j])]
            first.setdefault(was[j], j)
            if lost:
                rest = _without(was[j], _widest([was[i] for i in lost], ctx))
                mask = _mask_of(graph, rest, masks)
                used = dict.fromkeys([mask_of(edit), *(chain.edits[i] for i in lost)])
                alike.setdefault(mask, {}).update(used)
                _reselect(graph, edit, mask)
                firsts = merge_origins(*(chain.edits[i] for i in lost))
                names = places(origin.where for origin in firsts)
                ctx.remark(edit, f"gives way to {names}: {selector_text(rest)}")
    for mask, nodes in alike.items():
        mask.meta["origins"] = merge_origins(mask, *nodes)


def _widest(selectors: list[Selector], ctx: Context) -> list[Selector]:
    """Leave out the selectors that another one of them covers: they take nothing more."""
    kept: list[Selector] = []
    for one in dict.fromkeys(selectors):
        if not any(ctx.implies(one, other) for other in kept):
            kept = [*(other for other in kept if not ctx.implies(other, one)), one]
    return kept


def _without(selector: Selector, lost: list[Selector]) -> Selector:
    kept = () if isinstance(selector, Everything) else (selector,)
    terms = (*kept, *(Not(term=one) for one in lost))
    return And(terms=terms) if len(terms) > 1 else terms[0]


def _mask_of(graph: Graph, selector: Selector, masks: dict[Selector, Node]) -> Node:
    """Return the node of a selector, one that is there already if there is one."""
    if selector not in masks:
        # Before all ops, so that every site can use it.
        with graph.inserting_before(_first_op(graph)):
            masks[selector] = call(graph, select, input_node(graph, "tokens"), selector)
    return masks[selector]


def _first_op(graph: Graph) -> Node:
    found: Node = next(node for node in graph.nodes if node.op == "call_function")
    return found


def _reselect(graph: Graph, edit: Node, mask: Node) -> None:
    """Give an edit another selector."""
    top = _first_op(graph)
    # It may belong to a later edit; it needs nothing but the tokens, so it can move up.
    if mask is not top and edit < mask:
        top.prepend(mask)
    own, fading = gate_of(edit), decay_of(edit)
    # Other edits may keep the gate and the decay as they are.
    if mask is not top and (own is not None or fading is not None):
        top.prepend(mask)
    weight = mask
    with graph.inserting_before(own or edit):
        if fading is not None:
            weight = call(graph, decay, *fading.args[:-1], weight, origins=origins(fading))
        if own is not None:
            weight = call(graph, gate, *own.args[:-1], weight, origins=origins(own))
    edit.args = (*edit.args[:-1], weight)


def _add_up(graph: Graph, ctx: Context) -> None:
    """Let the edits of a site read the original, where any two of them overlap."""
    for chain in chains(graph):
        for edit in chain.edits:
            # What reads the stream between two edits are gates: they read the original too.
            for reader in [user for user in edit.users if is_op(user, gate)]:
                reader.replace_input_with(edit, chain.read)
        if next(_overlaps(chain, ctx), None) is None:
            continue
        for edit in chain.edits:
            edit.args = (chain.read, *edit.args[1:])
        with graph.inserting_before(chain.write):
            every = merge_origins(*chain.edits)
            total = call(graph, combine, chain.read, tuple(chain.edits), origins=every)
        chain.write.args = (*chain.write.args[:2], total)
        ctx.remark(total, f"{len(chain.edits)} edits of a site read the original and add up")


def _note_order(graph: Graph, ctx: Context) -> None:
    """Remark once for each statement that reads the stream what others wrote before."""
    wrote: dict[Origin, set[Origin]] = {}
    readers: dict[Origin, Node] = {}
    for chain in chains(graph):
        for earlier, later in _overlaps(chain, ctx, lambda edit: is_op(edit, *READERS)):
            mine = origins(later)[0]
            readers[mine] = later
            wrote.setdefault(mine, set()).update(origins(earlier))
    for mine, found in wrote.items():
        names = places(one.where for one in sorted(found, key=lambda one: one.order))
        ctx.remark(readers[mine], f"reads what {names} wrote, where both apply")
