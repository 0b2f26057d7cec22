"""The scalars of one column of a site's update, before places in a bank are given out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from interv.passes.graph.directions import Map


class Kind(IntEnum):
    """What a column does with what it reads; the numbers are those that kernels know."""

    ADD = 0
    GATE = 1
    KEEP_NORM = 2
    REPLACE = 3
    JOINT = 4
    LINEAR = 5
    ROTATE = 6


# What is shorter than this beside what it was is a rounding error: it is not scaled to that length.
NOTHING_LEFT = 1e-5


class Mode(IntFlag):
    """How a column takes its numbers; the bits are those that kernels know."""

    PLAIN = 0
    # Of ADD and KEEP_NORM: alpha counts in lengths of the stream, alpha·‖y‖.
    SHARE = 1
    # Of GATE: it takes |p|.
    ABSOLUTE = 2
    # Of GATE: it takes p/‖y‖, 0 of a stream that is zero.
    COSINE = 4
    # Of GATE: its weight is 1 where low < p < high, 0 elsewhere.
    STEP = 8
    # Of GATE: it reads nothing, its weight is 2^(alpha·i) for generated token i.
    DECAY = 32
    # Of any: a request's multiplier may raise its strength above 1. Kernels do not look at it.
    OVER = 16


@dataclass(frozen=True, slots=True)
class Form:
    """One column: what it reads, what it adds, and how much.

    With `p = direction[a]·y`, where y is the stream as the columns that `sees` names left it:

        ADD        adds c·direction[b], c = alpha + beta·p + strength·(clamp(p, low, high) - p)
        GATE       adds nothing; its weight is sigmoid(alpha·(p - low)), times that of its own gate
        KEEP_NORM  adds as ADD does, then scales what has come of y to the norm of y
        REPLACE    sets y to (1 - strength)·y + strength·alpha·direction[b]
        JOINT      as ADD, but the `block` columns from the first of them on see each other: c is
                   what holds for all of them at once
        ROTATE     two columns, of which the first has block 2: with their readings p and q, of
                   orthonormal rows, r = √(p² + q²) and p > low, they add strength·(alpha·r - p)
                   and strength·(alpha·r - q), each by its own alpha: the cosine and the sine
        LINEAR     sets the stream to h + alpha·(map(h) - h) before any other column reads it

    `a` is -1 where nothing is read, `b` where nothing is added. Bit i of `sees` names column i.
    A column whose `gate` is not -1 has its c (of REPLACE its strength) multiplied by the weight
    of that GATE column of the same update. `mode` says how alpha, p and the weight are meant.
    """

    a: int
    b: int
    alpha: float = 0.0
    beta: float = 0.0
    strength: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    sees: int = 0
    kind: Kind = Kind.ADD
    gate: int = -1
    block: int = 0
    map: Map | None = None
    mode: Mode = Mode.PLAIN


def reads(a: int, kind: int, mode: int) -> bool:
    """Say whether a column with these numbers reads, or scales, the stream that it sees."""
    return a >= 0 or kind in (Kind.KEEP_NORM, Kind.REPLACE) or bool(mode & Mode.SHARE)
