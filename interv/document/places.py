"""One place of tokens for each way in which lists and strides can hold together.

A place is `(x, y)`: the position and its distance from the prompt's end. Every test that a
selector makes looks at one of the two, and a place is a token's exactly if `x >= 0` and
`x - y >= 1`. So of all x that pass the same tests the largest decides, and of all y the smallest.
Between two borders the tests repeat with the least common multiple of the strides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from interv.document.positions import Runs, runs_of
from interv.document.spec import At, InPhase, Positions, Slice, Stride
from interv.errors import IntervError

Numbers: TypeAlias = npt.NDArray[np.int64]
Signs: TypeAlias = npt.NDArray[np.bool_]
# What is looked at along one axis, and the places that it leaves.
MOST_LOOKED_AT, MOST_PLACES = 1 << 20, 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The places of tokens, x and y apart."""

    x: Numbers
    y: Numbers

    @classmethod
    def of(cls, columns: Sequence[Sequence[int]]) -> Columns:
        """Return columns of numbers as arrays."""
        return cls(*(np.array(one, dtype=np.int64) for one in columns))


@dataclass(slots=True, eq=False)
class _Axis:
    """What a selector asks along one axis: where answers change, and how they repeat."""

    borders: set[int] = field(default_factory=lambda: {0})
    period: int = 1
    tests: list[Callable[[Numbers], Signs]] = field(default_factory=list)

    def bound(self, border: int) -> None:
        self.borders.add(border)
        self.tests.append(lambda at: at >= border)

    def among(self, runs: tuple[tuple[int, int], ...]) -> None:
        self.borders.update(border for first, last in runs for border in (first, last + 1))
        self.tests.append(lambda at: within(runs, at))

    def repeat(self, start: int, step: int) -> None:
        self.period = math.lcm(self.period, step)
        self.tests.append(lambda at: (at - start) % step == 0)

    def first_of_each(self, at: Numbers) -> list[int]:
        """Return of all numbers that pass the same tests the first."""
        passed = np.packbits([test(at) for test in self.tests], axis=0).T
        _, first = np.unique(passed, axis=0, return_index=True)
        found: list[int] = at[np.sort(first)].tolist()
        return found


def within(runs: tuple[tuple[int, int], ...], at: Numbers) -> Signs:
    """Say which numbers lie in sorted, disjoint runs."""
    if not runs:
        return np.zeros(len(at), dtype=np.bool_)
    first, last = np.array(runs, dtype=np.int64).T
    run = np.searchsorted(first, at, side="right") - 1
    found: Signs = (run >= 0) & (at <= last[np.maximum(run, 0)])
    return found


def selected(leaf: Stride | Positions, places: Columns) -> Signs:
    """Say which places a part selects."""
    in_prompt = (places.y < 0) & (places.x >= 0)
    if isinstance(leaf, Positions):
        runs = runs_of(leaf)
        if leaf.phase == "generated":
            return within(runs.start, places.y)
        either = within(runs.start, places.x) | within(runs.end, places.y)
        for first, last in runs.between:
            either |= (_axis(places, first) >= first) & (_axis(places, last) <= last)
        return either & in_prompt
    start = leaf.start or 0
    own = places.y if leaf.phase == "generated" else _axis(places, start)
    found: Signs = (own >= start) & ((own - start) % leaf.step == 0)
    if leaf.stop is not None:
        end = places.y if leaf.phase == "generated" else _axis(places, leaf.stop)
        found &= end < leaf.stop
    found &= in_prompt if leaf.phase == "prompt" else places.y >= 0
    return found


def _axis(places: Columns, bound: int) -> Numbers:
    return places.x if bound >= 0 else places.y


def representatives(
    leaves: Iterable[InPhase | At | Slice | Stride | Positions], least: int = 0
) -> list[tuple[int, int]]:
    """Return a place for each way in which these parts can hold together.

    Cells without an end have one whose x is `least` or more.
    Raises E881 where strides meet too rarely to be compared.
    """
    x, y = _Axis(), _Axis()
    y.bound(0)
    for leaf in leaves:
        _ask(leaf, x, y)
    ys = y.first_of_each(_looked_at(y, upwards=True))
    # The last cell of x has no end: from there on every token of the ys is one of a request.
    x.bound(0)
    x.borders.add(max(*x.borders, max(ys) + 1, least))
    xs = x.first_of_each(_looked_at(x, upwards=False))
    if len(xs) * len(ys) > MOST_PLACES:
        raise _too_rare()
    return [(a, b) for a in sorted(xs) for b in sorted(ys) if a - b >= 1]


def _ask(leaf: InPhase | At | Slice | Stride | Positions, x: _Axis, y: _Axis) -> None:
    def axis(bound: int) -> _Axis:
        return x if leaf.phase == "prompt" and bound >= 0 else y

    match leaf:
        case At(index=index):
            axis(index).among(((index, index),))
        case Slice() | Stride():
            for bound in (leaf.start, leaf.stop):
                if bound is not None:
                    axis(bound).bound(bound)
            if isinstance(leaf, Stride):
                start = leaf.start or 0
                axis(start).repeat(start, leaf.step)
        case Positions():
            runs: Runs = runs_of(leaf)
            axis(0).among(runs.start)
            y.among(runs.end)
            for first, last in runs.between:
                axis(first).bound(first)
                axis(last).bound(last + 1)


def _looked_at(axis: _Axis, *, upwards: bool) -> Numbers:
    """Return numbers of each cell, as many as answers repeat in, the best of each cell first.

    Upwards the smallest ones, and those below the first border; downwards the largest ones that
    are not below 0, and those above the last border.
    """
    borders = sorted(axis.borders)
    if len(borders) * axis.period > MOST_LOOKED_AT:
        raise _too_rare()
    parts = list(_cells(borders, axis.period, upwards=upwards))
    at = np.unique(np.concatenate(parts))
    return at if upwards else at[at >= 0][::-1]


def _cells(borders: list[int], period: int, *, upwards: bool) -> Iterator[Numbers]:
    yield np.arange(borders[0] - period, borders[0])
    for low, high in itertools.pairwise(borders):
        near = (low, min(high, low + period)) if upwards else (max(low, high - period), high)
        yield np.arange(*near)
    yield np.arange(borders[-1], borders[-1] + period)


def _too_rare() -> IntervError:
    return IntervError(
        "E881",
        "the steps of these selectors meet too rarely to be compared",
        notes=["where edits can meet is decided when a document is compiled, exactly"],
        helps=["use steps of which one divides the other, as 4 and 8"],
    )
