"""What a token's past can be: every way in which selectors can hold along some request.

Selectors that follow markers see a finite automaton: the longest end of the tokens so far that
begins a marker (Aho, Corasick, 1975), and what is open. Its states are walked from the start of a
request, the nearest first. An id that no selector names may stand in front of any past without
changing it, so what can be at a position can be at every later one: the least is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from interv.document.markers import Following, Id, Opening, opening_of, single_ids, step
from interv.document.spec import Selector, Token

# So many tokens of states are looked at: with more, selectors count as able to hold in every way.
MOST_STEPS = 4096


class Past(NamedTuple):
    """A token and what came before it; tokens before `earlier` belong to no marker."""

    token_id: Id
    earlier: tuple[Id, ...]
    held: frozenset[Following]  # the selectors that hold for the token

    @property
    def least(self) -> int:
        """Return the first position at which such a token can be."""
        return len(self.earlier)


class _State(NamedTuple):
    end: tuple[Id, ...]  # the longest end of the tokens so far that begins a marker
    open: frozenset[Opening]


@lru_cache(maxsize=1024)
def pasts(leaves: tuple[Following, ...], kinds: tuple[Id, ...]) -> tuple[Past, ...] | None:
    """Return every token that some request can have, as far as `leaves` can tell it, nearest first.

    `kinds` is one id of each kind that selectors tell apart; one of them is named by none.
    None where there would be too many.
    """
    openings = tuple(dict.fromkeys(map(opening_of, leaves)))
    markers = {one for each in openings for part in each for one in part}
    begins = {one[:n] for one in markers for n in range(len(one) + 1)}
    reached: dict[_State, tuple[Id, ...]] = {_State((), frozenset()): ()}
    found: dict[tuple[Id, frozenset[Following]], Past] = {}
    waiting = list(reached)
    for state in waiting:
        earlier = reached[state]
        for one in kinds:
            ids = (*state.end, one)
            after = _after(openings, begins, state, ids)
            held = _held(leaves, state.open, after.open)
            found.setdefault((one, held), Past(one, earlier, held))
            if after not in reached:
                reached[after] = (*earlier, one)
                waiting.append(after)
        if len(reached) * len(kinds) > MOST_STEPS:
            return None
    return tuple(found.values())


@lru_cache(maxsize=4096)
def _held(
    leaves: tuple[Following, ...], was: frozenset[Opening], now: frozenset[Opening]
) -> frozenset[Following]:
    """Return the selectors that hold for a token before which `was` is open, and `now` after it."""
    found = []
    for leaf in leaves:
        opening = opening_of(leaf)
        before, after = opening in was, opening in now
        wanted = {"after": before, "before": not after, "between": before and after}
        if wanted[leaf.kind]:
            found.append(leaf)
    return frozenset(found)


def _after(
    openings: Sequence[Opening],
    begins: set[tuple[Id, ...]],
    state: _State,
    ids: tuple[Id, ...],
) -> _State:
    is_open = state.open
    # Only what begins a marker can end one.
    near = tuple(ids[n:] for n in range(len(ids)) if ids[n:] in begins)
    if near:
        is_open = frozenset(one for one in openings if step(one, one in is_open, ids))
    return _State(near[0] if near else (), is_open)


def truth_of_pasts(
    leaves: Iterable[Selector], known: Sequence[Past]
) -> dict[Selector, frozenset[Id]]:
    """Return for each part that asks for ids which of `known`, by number, it holds for."""
    found: dict[Selector, frozenset[Id]] = {}
    for leaf in leaves:
        if isinstance(leaf, Token):
            own = single_ids(leaf)
            found[leaf] = frozenset(i for i, past in enumerate(known) if past.token_id in own)
        elif isinstance(leaf, Following):
            found[leaf] = frozenset(i for i, past in enumerate(known) if leaf in past.held)
    return found
