"""The Triton form of the row copy: one program a token, which ends at once if it is not wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

MOST_BLOCK = 1024


@triton.jit
def _copy(
    hidden,  # [T, H]
    residual,  # [T, H]; hidden again where there is none
    hidden_stride,
    residual_stride,
    target,  # [M] int32, -1: not captured
    stage,  # [M, H], written
    H,
    PAIR: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    t = tl.program_id(0).to(tl.int64)
    row = tl.load(target + t).to(tl.int64)
    if row < 0:
        return
    i = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    inside = i < H
    h = tl.load(hidden + t * hidden_stride + i, mask=inside, other=0.0).to(tl.float32)
    if PAIR:
        h += tl.load(residual + t * residual_stride + i, mask=inside, other=0.0).to(tl.float32)
    tl.store(stage + row * H + i, h.to(stage.dtype.element_ty), mask=inside)


@dataclass(frozen=True, slots=True, eq=False)
class TritonRows:
    """One site's copy as a Triton launch; safe under CUDA graph capture."""

    target: torch.Tensor  # [M] int32
    stage: torch.Tensor  # [M, H]

    def __call__(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        """Copy the wanted rows of `hidden + residual` `[T, H]`."""
        tokens, width = hidden.shape
        other = hidden if residual is None else residual
        assert hidden.stride(1) == other.stride(1) == 1, "rows of the stream are contiguous"
        assert self.stage.is_contiguous()
        assert self.stage.shape[1] == width
        assert tokens <= len(self.target)
        block = min(MOST_BLOCK, triton.next_power_of_2(width))
        launch: Any = _copy
        launch[(tokens, triton.cdiv(width, block))](
            hidden,
            other,
            hidden.stride(0),
            other.stride(0),
            self.target,
            self.stage,
            width,
            PAIR=residual is not None,
            BLOCK_H=block,
        )
