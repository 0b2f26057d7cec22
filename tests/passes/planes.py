"""A rotation in a plane in plain torch, and where rounding would decide what it does."""

from __future__ import annotations

import math

from hypothesis import assume
from torch import Tensor, dot

from interv.document.spec import Rotate

# A reading so near to nothing that rounding may decide on which side of it it is.
TIE = 1e-5


def turned(edit: Rotate, h: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return what a rotation at strength 1 adds to a stream, all [H]."""
    a = first / first.norm()
    b = second - dot(second, a) * a
    b = b / b.norm()
    p, q = dot(h, a), dot(h, b)
    if edit.adaptive:
        assume(abs(p) > TIE * h.norm() or h.norm() == 0)
        if p <= 0:
            return 0 * h
    angle, length = math.radians(edit.to), (p**2 + q**2).sqrt()
    return length * (math.cos(angle) * a + math.sin(angle) * b) - p * a - q * b
