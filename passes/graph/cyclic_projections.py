"""The smallest change after which several caps hold at once, by sweeps over their coefficients.

Hildreth, "A quadratic programming procedure", 1957: with unit directions the coordinate descent on
the dual is a cap of what each direction reads without its own part. The kernels do the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# The compiler refuses sets of caps that so many sweeps do not solve.
SWEEPS = 512


def still(dtype: torch.dtype) -> float:
    """Return the step, as a share of the largest reading, that is rounding in a dtype."""
    return 2 * torch.finfo(dtype).eps


def swept(
    p: Tensor, gram: Tensor, lows: Sequence[float], highs: Sequence[float], on: Tensor
) -> Tensor:
    """Return the coefficients `[T, K]` of K unit directions with which all their caps hold.

    `p` `[T, K]` are the readings before the change, `on` `[T, K]` says which caps count for which
    token, and `gram` `[K, K]` are the dots of the directions, with zeros on its diagonal. Each
    coefficient in turn is put to what its own cap asks for, until none moves by more than
    rounding, at most `SWEEPS` times.
    """
    c = torch.zeros_like(p)
    least = torch.zeros_like(p[:, 0])
    for sweep in range(SWEEPS):
        moved = torch.zeros_like(least)
        for j, (low, high) in enumerate(zip(lows, highs, strict=True)):
            at = p[:, j] + c @ gram[j]
            new = torch.where(on[:, j], at.clamp(low, high) - at, 0.0)
            moved = torch.maximum(moved, (new - c[:, j]).abs())
            if sweep == 0:
                least = torch.maximum(least, still(p.dtype) * at.abs())
            c[:, j] = new
        if (moved <= least).all():
            break
    return c
