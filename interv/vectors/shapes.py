"""The shapes in which directions are saved: axes of length 1 are what is left of a batch."""

from __future__ import annotations

import math
from dataclasses import replace

from interv.vectors.raw import Raw


def squeezed(raw: Raw) -> Raw:
    """Return a tensor as [H] or [L, H] where only axes of length 1 stand in the way.

    [1, H] and [1, 1, H] are one direction, [L, 1, H] and [1, L, H] are L of them, [H, 1] is a
    column. What has more axes than that keeps its shape, for the caller to refuse.
    """
    shape = raw.shape
    if len(shape) < 2 or not math.prod(shape):
        return raw
    head = tuple(size for size in shape[:-1] if size != 1)
    if shape[-1] == 1 and len(head) == 1:
        return replace(raw, shape=head)
    return replace(raw, shape=(*head, shape[-1])) if len(head) < 2 else raw


def row(raw: Raw, index: int) -> Raw:
    """Return row `index` of [N, H], without looking at the others."""
    size = len(raw.data) // raw.shape[0]
    return Raw(raw.dtype, raw.shape[1:], raw.data[index * size : (index + 1) * size])
