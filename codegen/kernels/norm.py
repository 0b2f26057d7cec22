"""An update with the add-RMSNorm that follows it, as plain torch: what the kernel must equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from interv.passes.captured.norm_rounding import Rounding


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """An RMSNorm as a graph calls it."""

    weight: Tensor | None  # [H], None: all ones
    epsilon: float
    rounding: Rounding


def update_norm(
    update: Callable[[Tensor, Tensor | None], None],  # one site's
    hidden: Tensor,  # [T, H]
    residual: Tensor,  # [T, H]
    norm: Norm,
) -> tuple[Tensor, Tensor]:
    """Return the norm of the edited stream and the new residual, both of hidden's dtype.

    The edit is rounded to hidden's dtype as `update` alone would do, so that joining the two
    changes no answer.
    """
    edited = hidden.clone()
    update(edited, residual)
    return add_norm(edited, residual, norm)


def add_norm(
    hidden: Tensor,  # [T, H]
    residual: Tensor,  # [T, H]
    norm: Norm,
) -> tuple[Tensor, Tensor]:
    """Return RMSNorm(hidden + residual) * weight, and the sum; both of hidden's dtype.

    https://arxiv.org/abs/1910.07467, rounded where vLLM's fused add-RMSNorm rounds. Sums are in
    float32, or in float64 for a float64 stream.
    """
    dtype = hidden.dtype
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x = hidden.to(wide) + residual.to(wide)
    carried = x.to(dtype)
    if norm.rounding is Rounding.KERNEL:
        x = carried.to(wide)
    x = x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + norm.epsilon)
    if norm.weight is None:
        return x.to(dtype), carried
    if norm.rounding is Rounding.COMPILED:
        return (x * norm.weight).to(dtype), carried
    return (x.to(norm.weight.dtype) * norm.weight).to(dtype), carried
