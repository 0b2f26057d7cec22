"""What a full linear map cannot come after: it is applied before all else at its site.

The update of a site reads the stream once. What it reads is the mapped stream, so every edit and
every gate that stands before a map and meets it on some token would read, or leave, another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from interv.document.sites import Site
from interv.document.wording import sites_text
from interv.errors import IntervError, Label
from interv.passes.graph.context import Context
from interv.passes.graph.ir import Chain, Node, gate_of, is_op, origins, selector_of, statement_name
from interv.passes.graph.ops import gate, linear


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """A map, and what it meets at a site."""

    full: Node
    other: Node  # an edit or a gate
    why: str


def misplaced(chains: Sequence[Chain], ctx: Context) -> list[IntervError]:
    """Make an E417 for each statement that a map cannot come after, however many sites they share.

    The graph is that of a resolved conflict: edits that cannot apply to one token do not meet.
    """
    found: dict[tuple[int, int], tuple[_Pair, list[Site]]] = {}
    for chain in chains:
        for pair in _pairs(chain, ctx):
            key = (origins(pair.full)[0].order, origins(pair.other)[0].order)
            sites = found.setdefault(key, (pair, []))[1]
            if chain.site not in sites:
                sites.append(chain.site)
    return [_error(*found[key], ctx) for key in sorted(found)]


def _pairs(chain: Chain, ctx: Context) -> Iterator[_Pair]:
    before: list[Node] = []
    for value, edit in zip((chain.read, *chain.edits), (*chain.edits, None), strict=True):
        readers = [user for user in value.users if is_op(user, gate)]
        before += readers
        if edit is None:
            continue
        if is_op(edit, linear):
            yield from _of(edit, before, chain, ctx)
        before.append(edit)


def _of(full: Node, before: Sequence[Node], chain: Chain, ctx: Context) -> Iterator[_Pair]:
    """Yield what meets a map; `before` are the edits and gates that come before it."""
    own = gate_of(full)
    if own in before:
        yield _Pair(full, full, "its own gate reads the stream there, and the map comes first")
    others = [one for one in before if one is not own]
    if chain.together:
        # All gates there read the original, and so does every edit.
        others += [one for one in chain.edits if one is not full and one not in before]
    for one in others:
        if ctx.overlap(selector_of(one), selector_of(full)):
            yield _Pair(full, one, _why(one, chain))


def _why(other: Node, chain: Chain) -> str:
    if chain.together:
        return "both read the original, and the map comes first"
    if is_op(other, gate):
        return "its gate reads what the map has not changed yet"
    return "can apply to a token that the map takes"


def _error(pair: _Pair, sites: list[Site], ctx: Context) -> IntervError:
    first, at = origins(pair.full)[0], origins(pair.other)[0]
    map_said = f"{statement_name(pair.full)} ({first.where})"
    if pair.other is pair.full:
        return IntervError(
            "E417",
            f"{map_said} of program '{ctx.program}' has its gate at its own site, "
            f"{sites_text(sites)}",
            first.span,
            pair.why,
            notes=[_FIRST],
            helps=["read the gate at an earlier site: gate NAME at SITE"],
        )
    name = "gate" if is_op(pair.other, gate) else statement_name(pair.other)
    return IntervError(
        "E417",
        f"{map_said} of program '{ctx.program}' cannot come after {name} ({at.where}) at "
        f"{sites_text(sites)}",
        first.span,
        "applies a full linear map",
        more=[Label(at.span, pair.why)] if at.span else [],
        notes=[_FIRST],
        helps=[_help(pair)],
    )


_FIRST = "a full linear map is a matmul of its own, applied before all other edits of its site"


def _help(pair: _Pair) -> str:
    if is_op(pair.other, linear):
        return "put one of the two at another site, or multiply the maps into one"
    if "original" in pair.why:
        return "say 'conflict sequential' and list the map first, or put one at another site"
    return "list the map first, put one of the two at another site, or select other tokens"
