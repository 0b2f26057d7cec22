"""The scalars of one column of a site's update, before places in a bank are given out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from interv.passes.graph.directions import Map


class Kind(IntEnum):
    """What a column does with what it reads; the numbers are those that kernels know."""

    ADD = 0
    GATE = 1
    KEEP_NORM = 2
    REPLACE = 3
    JOINT = 4
    LINEAR = 5


@dataclass(frozen=True, slots=True)
class Form:
    """One column: what it reads, what it adds, and how much.

    With `p = direction[a]·y`, where y is the stream as the columns that `sees` names left it:

        ADD        adds c·direction[b], c = alpha + beta·p + strength·(clamp(p, low, high) - p)
        GATE       adds nothing; its weight is sigmoid(alpha·(p - low))
        KEEP_NORM  adds alpha·direction[b], then scales y + alpha·direction[b] to the norm of y
        REPLACE    sets y to (1 - strength)·y + strength·alpha·direction[b]
        JOINT      as ADD, but the `block` columns from the first of them on see each other: c is
                   what holds for all of them at once
        LINEAR     sets the stream to h + alpha·(map(h) - h) before any other column reads it

    `a` is -1 where nothing is read, `b` where nothing is added. Bit i of `sees` names column i.
    A column whose `gate` is not -1 has its alpha (of REPLACE its strength, of ADD all of c)
    multiplied by the weight of that GATE column of the same update.
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
