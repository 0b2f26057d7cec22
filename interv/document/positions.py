"""Lists and strides of positions: which ones they name, and alternatives as one list.

A list names positions counted from the prompt's start, from its end, or between the two. Its
runs are sorted and disjoint, so that one look into a table decides for a token, whatever the
length of the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from interv.document.spec import (
    And,
    At,
    Not,
    Or,
    Phase,
    PositionRange,
    Positions,
    Selector,
    Stride,
)

# The table of a list lies on the device; ranges between both ends are looked at one by one.
MOST_POSITIONS, MOST_BETWEEN = 4096, 16


@dataclass(frozen=True, slots=True)
class Runs:
    """A list as runs `(first, last)`, both included.

    `start` counts from the start of the phase, `end` from the end of the prompt; both are sorted
    and disjoint. `between` counts one end from each.
    """

    start: tuple[tuple[int, int], ...]
    end: tuple[tuple[int, int], ...]
    between: tuple[tuple[int, int], ...]


def ends_of(item: int | PositionRange) -> tuple[int, int]:
    """Return the first and the last position of an item of a list."""
    return (item, item) if isinstance(item, int) else (item.first, item.last)


def runs_of(selector: Positions) -> Runs:
    """Return the runs of a list."""
    ends = [ends_of(item) for item in selector.items]
    start = [one for one in ends if min(one) >= 0]
    end = [one for one in ends if max(one) < 0]
    between = {one for one in ends if min(one) < 0 <= max(one)}
    return Runs(_joined(start), _joined(end), tuple(sorted(between)))


def _joined(runs: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Sort runs and join those that touch; an empty one is left out."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(run for run in runs if run[0] <= run[1]):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def includes(selector: Stride | Positions, index: int, length: int) -> bool:
    """Say whether a part holds for the token `index` of its phase; `length` is the prompt's.

    A stride counts from the start that it names, also where the prompt begins after it.
    """
    if isinstance(selector, Positions):
        return any(
            _from_end(first, length) <= index <= _from_end(last, length)
            for first, last in map(ends_of, selector.items)
        )
    start = _from_end(selector.start or 0, length)
    before = selector.stop is None or index < _from_end(selector.stop, length)
    return index >= start and before and (index - start) % selector.step == 0


def _from_end(bound: int, length: int) -> int:
    return bound if bound >= 0 else bound + length


def merged(selector: Selector) -> Selector:
    """Return `selector` with the positions that an `or` lists as one list.

    `prompt[0] or prompt[2]` is `prompt[0, 2]`, and `not prompt[0] and not prompt[2]` is
    `not prompt[0, 2]`. It holds for the same tokens.
    """
    match selector:
        case Not():
            return Not(term=merged(selector.term))
        case Or():
            terms = _gathered([merged(term) for term in selector.terms])
            return Or(terms=tuple(terms)) if len(terms) > 1 else terms[0]
        case And():
            terms = [merged(term) for term in selector.terms]
            left = [one.term for one in terms if isinstance(one, Not)]
            kept = [one for one in terms if not isinstance(one, Not)]
            terms = [*kept, *(Not(term=one) for one in _gathered(left))]
            return And(terms=tuple(terms)) if len(terms) > 1 else terms[0]
        case _:
            return selector


def _gathered(terms: list[Selector]) -> list[Selector]:
    """Make one list of what lists positions of a phase, where more than one term does."""
    listing = [one for one in terms if isinstance(one, At | Positions)]
    made: dict[Phase, Selector] = {}
    for phase in dict.fromkeys(one.phase for one in listing):
        own = [one for one in listing if one.phase == phase]
        if len(own) > 1:
            made[phase] = _list_of(phase, own)
    kept: list[Selector] = []
    for one in terms:
        new = made.get(one.phase) if isinstance(one, At | Positions) else None
        if new is None or new not in kept:
            kept.append(one if new is None else new)
    return kept


def _list_of(phase: Phase, parts: Iterable[At | Positions]) -> Selector:
    items = tuple(dict.fromkeys(item for part in parts for item in _items(part)))
    if len(items) == 1 and isinstance(items[0], int):
        return At(phase=phase, index=items[0])
    return Positions(phase=phase, items=items)


def _items(part: At | Positions) -> Iterator[int | PositionRange]:
    if isinstance(part, At):
        yield part.index
    else:
        yield from part.items
