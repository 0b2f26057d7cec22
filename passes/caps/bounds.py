"""Bounds on the dot of a stream with a direction, as the parts of one problem."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from interv.passes.caps.halfspaces import DEPENDENT, Array
from interv.passes.graph.directions import Row

Done = Literal["merged", "orthogonalised", "pinned", "open", "fixed", "implied", "swept"]
Why = Literal["infeasible", "close", "dependent", "many"]


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """`low <= row·h <= high`, with `row` a unit direction, float64 `[H]`.

    `of` are the statements that it stands for, by number; `off` those whose directions were
    taken from its own.
    """

    row: Row
    low: float
    high: float
    of: tuple[int, ...]
    off: tuple[int, ...] = ()

    @property
    def pinned(self) -> bool:
        """Say whether one value is left."""
        return self.low == self.high


@dataclass(frozen=True, slots=True)
class Note:
    """What was done to the bounds of some statements, and because of which others."""

    done: Done
    of: tuple[int, ...]
    others: tuple[int, ...] = ()


class Unsolvable(Exception):
    """Statements that have no solution together, by number, and the `why` of it.

    They cannot all hold (`infeasible`), or sweeps might not solve them in time: two of their
    directions are nearly the same (`close`), they are `dependent` and none can be left out, or
    they are too `many` for more than a bound on how long that takes.
    """

    def __init__(self, why: Why, members: Iterable[int], cosine: float = 1.0) -> None:
        self.why = why
        self.members = tuple(sorted(set(members)))
        self.cosine = cosine
        super().__init__(why, self.members, cosine)


def slack(*values: float) -> float:
    """Return by how much values may miss each other: what float32 directions leave open."""
    return DEPENDENT * max([1.0, *(abs(value) for value in values if math.isfinite(value))])


def dot(a: Row, b: Row) -> float:
    """Return `a·b`, the same to the last bit on any machine."""
    return math.fsum((a * b).tolist())


def rows_of(bounds: Sequence[Bound]) -> Array:
    """Return the directions, `[K, H]`."""
    return np.stack([one.row for one in bounds]) if bounds else np.zeros((0, 1))


def gram_of(bounds: Sequence[Bound]) -> Array:
    """Return the dots of the directions with each other, `[K, K]`."""
    rows = rows_of(bounds)
    return rows @ rows.T


def all_of(bounds: Iterable[Bound]) -> tuple[int, ...]:
    """Return the statements that bounds stand for."""
    return tuple(sorted({number for one in bounds for number in one.of}))


def behind(bounds: Iterable[Bound]) -> tuple[int, ...]:
    """Return the statements that bounds stand for, and those that changed their directions."""
    return tuple(sorted({number for one in bounds for number in (*one.of, *one.off)}))
