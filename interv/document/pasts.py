"""What a token's past can be: every way in which selectors can hold along some request.

Selectors that follow markers see a finite automaton: the longest end of the tokens so far that
begins a marker (Aho, Corasick, 1975), and what is open. Its states are walked from the start of a
request, the nearest first. An id that no selector names may stand in front of any past without
changing it, so what can be at a position can be at every later one: the least is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from interv.document.markers import Following, Id, Opening, opening_of, selects, single_ids, step
from interv.document.spec import Selector, Token

# More are not walked: then selectors count as able to hold in every way.
MOST_STATES = 256


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

    `kinds` are ids that other selectors tell apart; one of them is named by no selector at all.
    None where there would be too many.
    """
    openings = tuple(dict.fromkeys(map(opening_of, leaves)))
    begins = {one[:n] for o in openings for part in o for one in part for n in range(len(one) + 1)}
    alphabet = tuple(dict.fromkeys([*(i for one in begins for i in one), *kinds]))
    reached: dict[_State, tuple[Id, ...]] = {_State((), frozenset()): ()}
    found: dict[tuple[Id, frozenset[Following]], Past] = {}
    waiting = list(reached)
    for state in waiting:
        earlier = reached[state]
        for one in sorted(alphabet, key=str):
            held = frozenset(_held(leaves, state, one))
            found.setdefault((one, held), Past(one, earlier, held))
            after = _after(openings, begins, state, one)
            if after not in reached:
                reached[after] = (*earlier, one)
                waiting.append(after)
        if len(reached) > MOST_STATES:
            return None
    return tuple(found.values())


def _held(leaves: Sequence[Following], state: _State, one: Id) -> Iterator[Following]:
    ids = (*state.end, one)
    for leaf in leaves:
        if selects(leaf, opening_of(leaf) in state.open, ids):
            yield leaf


def _after(
    openings: Sequence[Opening], begins: set[tuple[Id, ...]], state: _State, one: Id
) -> _State:
    ids = (*state.end, one)
    is_open = frozenset(each for each in openings if step(each, each in state.open, ids))
    while ids not in begins:
        ids = ids[1:]
    return _State(ids, is_open)


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
