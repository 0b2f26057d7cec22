"""The scalars of one column of a site's update, before places in a bank are given out."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Form:
    """One column: it reads `p = direction[a]·h` and adds `phi(p)·direction[b]`.

    `a` is -1 where nothing is read. Bit i of `sees` says that it reads what column i wrote.
    Formula: see `interv.codegen.bundle.Column`.
    """

    a: int
    b: int
    alpha: float = 0.0
    beta: float = 0.0
    strength: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    sees: int = 0
