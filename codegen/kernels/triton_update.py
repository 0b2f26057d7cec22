"""The Triton form of the update: one program a token, the stream read once and written once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from interv.codegen.kernels.triton_columns import WIDTH, B, add, count, held, weigh
from interv.codegen.slot import WORDS
from interv.codegen.tables import SiteCounts, SiteTensors, StepTensors
from interv.passes.placing.plan import MAX_COLUMNS


@triton.jit
def _update(
    hidden,  # [T, H], written
    residual,  # [T, H]; hidden again where there is none
    hidden_stride,
    residual_stride,
    tables,  # `buffers` names them
    PAIR: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    (
        slot, mask, seat, gate, gate_stride, index, bank, gram, whole, real, wide, slots, total,
        seats, rows, H, slot_stride, count_stride, seat_stride,
    ) = tables  # fmt: skip
    t = tl.program_id(0).to(tl.int64)
    s = tl.load(slot + t).to(tl.int64)
    if s < 0:
        return
    n = tl.load(slots + s * count_stride)
    k = tl.arange(0, BLOCK_K)  # [K]
    at = s * slot_stride
    column = at + k
    on, wanted = held(column, k < n, tl.load(mask + t), whole, wide)
    if wanted == 0:
        return
    written = tl.load(whole + column * WIDTH + B, mask=k < n, other=-1)  # [K]
    i = tl.arange(0, BLOCK_H)  # [H]
    inside = i < H
    h = tl.load(hidden + t * hidden_stride + i, mask=inside, other=0.0).to(tl.float32)
    if PAIR:
        h += tl.load(residual + t * residual_stride + i, mask=inside, other=0.0).to(tl.float32)
    row = gate + t * gate_stride
    c, d = weigh(
        h, i, inside, k, at, n, on, wanted, written, bank, gram, whole, real, wide, rows, H, row,
        index + t,
    )  # fmt: skip
    fired = (c != 0.0) | (d != 0.0)
    if tl.sum(fired.to(tl.int32), 0) > 0:
        own = h
        if PAIR:
            # From the cache: kept until here, it would cost every thread 16 registers.
            own = tl.load(hidden + t * hidden_stride + i, mask=inside, other=0.0).to(tl.float32)
        own = add(own, h, i, inside, k, at, n, c, d, bank, whole, H)
        tl.store(hidden + t * hidden_stride + i, own.to(hidden.dtype.element_ty), mask=inside)
        chair = tl.load(seat + t).to(tl.int64)
        count(fired, k, column, k < n, at, n, whole, total, seats, chair, seat_stride)


@dataclass(frozen=True, slots=True, eq=False)
class TritonUpdate:
    """One site's update as a Triton launch; safe under CUDA graph capture.

    Reads its buffers by address: they may be written between steps but not replaced.
    """

    tensors: SiteTensors
    step: StepTensors
    counts: SiteCounts

    def __call__(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        """Add every token's edits to `hidden` [T, H] in place; the stream is `hidden + residual`.

        Raises AssertionError for a layout that the compiled graph must not produce.
        """
        check_layout(hidden, residual, self.tensors, self.step)
        tokens, size = hidden.shape[-2:]
        other = hidden if residual is None else residual
        block = triton.next_power_of_2(size)
        _update[(tokens,)](
            hidden,
            other,
            hidden.stride(-2),
            other.stride(-2),
            buffers(self.tensors, self.step, self.counts),
            PAIR=residual is not None,
            **shape(self.tensors, block),
        )


def check_layout(
    hidden: torch.Tensor, residual: torch.Tensor | None, tensors: SiteTensors, step: StepTensors
) -> None:
    """Raise AssertionError for a layout that the compiled graph must not produce."""
    assert hidden.stride(-1) == 1
    assert hidden.shape[-2] <= step.slot.shape[0]
    assert step.gate.stride(-1) == 1
    assert tensors.width <= MAX_COLUMNS
    assert tensors.columns.stride()[1:] == (WORDS, 1)
    if residual is not None:
        assert residual.shape == hidden.shape
        assert residual.stride(-1) == 1


def buffers(x: SiteTensors, step: StepTensors, counts: SiteCounts) -> tuple[Any, ...]:
    """Return what every kernel reads besides the stream: a tuple, which it takes apart."""
    return (
        step.slot,  # [T] int32
        step.mask,  # [T] int64
        step.seat,  # [T] int32
        step.gate,  # [T, G] float32, written
        step.gate.stride(0),
        step.index,  # [T] int32
        x.bank,  # [V, H] float32
        x.gram,  # [V, V] float32
        x.columns.view(torch.int32),  # whole: [S, K] columns of 20 words
        x.columns.view(torch.float32),  # real: the same memory
        x.columns,  # wide: the same memory as int64: 10 words
        x.count,  # slots: [S] int32, how many columns a slot has
        counts.total,  # [P] int64
        counts.seats,  # [R, P] int64
        x.bank.shape[0],
        x.bank.shape[1],
        x.columns.stride(0) // WORDS,  # columns between two slots
        x.count.stride(0),
        counts.seats.stride(0),
    )


def shape(tensors: SiteTensors, block: int) -> dict[str, Any]:
    """Return the sizes that a kernel is compiled for, and how."""
    return {
        "BLOCK_K": triton.next_power_of_2(max(2, tensors.width)),
        "BLOCK_H": block,
        "num_warps": warps(block),
        # What 16 warps may have at most. Told no number, ptxas spills to fit one program more.
        "maxnreg": 128,
        # Said outright, because the default differs between Triton's versions.
        "enable_fp_fusion": True,
    }


def warps(block: int) -> int:
    """Return the warps of a program: 16 elements a thread, so that two rows stay in registers."""
    return min(16, max(1, block // 512))
