"""Selectors that follow the tokens so far: `after`, `before` and `between` markers.

A marker is a sequence of ids. It *ends* at a token of a request if that token and those directly
before it are the sequence, prompt and generated together; occurrences may overlap. Nothing looks
ahead: what holds at a token follows from its id and those before it.

All three ask one thing, whether something is open. `after token(a)` and `before token(a)` are
opened by `a` for good; `between token(a) and token(b)` is opened by `a` and closed by `b`, and by
what ends both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from interv.document.spec import After, And, Before, Between, Not, Or, Selector, Token

Id: TypeAlias = int | str  # a text stands for an id of its own until it is known
Sequences: TypeAlias = tuple[tuple[Id, ...], ...]
Following: TypeAlias = After | Before | Between

# A marker's ids. What is kept of a request's tokens while it runs is as many, and more.
LONGEST_MARKER = 64


class Opening(NamedTuple):
    """What opens, and what closes again."""

    opens: Sequences
    closes: Sequences


def sequences(mark: Token) -> Sequences:
    """Return the markers that `token(…)` lists, each once."""
    found = (one if isinstance(one, tuple) else (one,) for one in mark.ids)
    return tuple(dict.fromkeys(found))


def single_ids(token: Token) -> tuple[Id, ...]:
    """Return the ids that `token(…)` selects where it is no marker."""
    return tuple(one for one in token.ids if not isinstance(one, tuple))


@lru_cache(maxsize=1024)
def opening_of(leaf: Following) -> Opening:
    """Return what a selector follows."""
    if isinstance(leaf, Between):
        return Opening(sequences(leaf.start), sequences(leaf.end))
    return Opening(sequences(leaf.mark), ())


@lru_cache(maxsize=1024)
def following(selector: Selector) -> tuple[Following, ...]:
    """Return the parts of a selector that depend on earlier tokens, each once, left to right."""
    return tuple(dict.fromkeys(_parts(selector)))


def _parts(selector: Selector) -> Iterator[Following]:
    match selector:
        case After() | Before() | Between():
            yield selector
        case Not():
            yield from following(selector.term)
        case And() | Or():
            for term in selector.terms:
                yield from following(term)


def told_apart(leaves: Iterable[Following]) -> tuple[Token, ...]:
    """Return sets of ids: those that no set tells apart are alike to the markers of `leaves`."""
    parts = [part for leaf in leaves for part in opening_of(leaf) if part]
    alone = [tuple(one[0] for one in part if len(one) == 1) for part in parts]
    within = {i for part in parts for one in part if len(one) > 1 for i in one}
    found = [*alone, *((one,) for one in sorted(within, key=str))]
    return tuple(Token(ids=ids) for ids in dict.fromkeys(found) if ids)


def longest(leaves: Iterable[Following]) -> int:
    """Return how many tokens the longest marker of some selectors has."""
    openings = map(opening_of, leaves)
    return max((len(one) for each in openings for part in each for one in part), default=0)


def ends(markers: Sequences, ids: Sequence[Id]) -> bool:
    """Say whether one of `markers` ends at the last of `ids`."""
    return any(tuple(ids[-length:]) in alike for length, alike in _by_length(markers))


@lru_cache(maxsize=1024)
def _by_length(markers: Sequences) -> tuple[tuple[int, frozenset[tuple[Id, ...]]], ...]:
    lengths = dict.fromkeys(map(len, markers))
    return tuple((n, frozenset(one for one in markers if len(one) == n)) for n in lengths)


def step(opening: Opening, is_open: bool, ids: Sequence[Id]) -> bool:
    """Return whether something is open after the last of `ids`, which begins with `is_open`."""
    if ends(opening.closes, ids):
        return False
    return is_open or ends(opening.opens, ids)


def selects(leaf: Following, was_open: bool, ids: Sequence[Id]) -> bool:
    """Say whether `leaf` holds for the last of `ids`; `was_open` before it."""
    opening = opening_of(leaf)
    match leaf:
        case After():
            return was_open
        case Before():
            return not step(opening, was_open, ids)
        case Between():
            return was_open and not ends(opening.closes, ids)


def follows(leaf: Following, ids: Sequence[Id]) -> bool:
    """Say whether `leaf` holds for the last of a request's tokens `ids`, one after the other."""
    opening, was_open, reach = opening_of(leaf), False, longest([leaf])
    for end in range(1, len(ids)):
        was_open = step(opening, was_open, ids[max(end - reach, 0) : end])
    return selects(leaf, was_open, ids)
