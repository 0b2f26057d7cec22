"""The Triton form of an update with the add-RMSNorm that follows it: one launch for both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from interv.codegen.kernels.norm import Norm
from interv.codegen.kernels.triton_columns import WIDTH, B, add, count, held, weigh
from interv.codegen.kernels.triton_update import buffers, check_layout, shape
from interv.codegen.tables import SiteCounts, SiteTensors, StepTensors

# The numbers of `interv.passes.captured.norm_rounding.Rounding`.
COMPILED, KERNEL = tl.constexpr(1), tl.constexpr(2)


@triton.jit
def _update_norm(
    hidden,  # [T, H]
    residual,  # [T, H]
    normed,  # [T, H], written; may be hidden
    carried,  # [T, H], written; may be residual
    weight,  # [H]; hidden again where there is none
    hidden_stride,
    residual_stride,
    normed_stride,
    carried_stride,
    epsilon,
    tables,  # `buffers` names them
    WEIGHT: tl.constexpr,
    ROUNDING: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    (
        slot, mask, seat, gate, gate_stride, index, bank, gram, whole, real, wide, slots, total,
        seats, rows, H, slot_stride, count_stride, seat_stride,
    ) = tables  # fmt: skip
    t = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK_H)  # [H]
    inside = i < H
    mine, other = hidden + t * hidden_stride + i, residual + t * residual_stride + i
    x = tl.load(mine, mask=inside, other=0.0).to(tl.float32)
    x += tl.load(other, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(slot + t).to(tl.int64)
    if s >= 0:
        n = tl.load(slots + s * count_stride)
        k = tl.arange(0, BLOCK_K)  # [K]
        at = s * slot_stride
        column = at + k
        on, wanted = held(column, k < n, tl.load(mask + t), whole, wide)
        if wanted > 0:
            written = tl.load(whole + column * WIDTH + B, mask=k < n, other=-1)  # [K]
            c, d = weigh(
                x, i, inside, k, at, n, on, wanted, written, bank, gram, whole, real, wide, rows, H,
                gate + t * gate_stride, index + t,
            )  # fmt: skip
            fired = (c != 0.0) | (d != 0.0)
            if tl.sum(fired.to(tl.int32), 0) > 0:
                own = tl.load(mine, mask=inside, other=0.0).to(tl.float32)
                own = add(own, x, i, inside, k, at, n, c, d, bank, whole, H)
                # As the update alone would store it, so that joining the two changes no answer.
                x = own.to(hidden.dtype.element_ty).to(tl.float32)
                x += tl.load(other, mask=inside, other=0.0).to(tl.float32)
                chair = tl.load(seat + t).to(tl.int64)
                count(fired, k, column, k < n, at, n, whole, total, seats, chair, seat_stride)
    kept = x.to(hidden.dtype.element_ty)
    if ROUNDING == KERNEL:
        x = kept.to(tl.float32)
    # The sum reads every thread's part of the row, so nothing is stored before all have loaded.
    x = x * tl.rsqrt(tl.sum(x * x, 0) / H + epsilon)
    if WEIGHT:
        w = tl.load(weight + i, mask=inside, other=0.0)
        if ROUNDING != COMPILED:
            x = x.to(weight.dtype.element_ty).to(tl.float32)
        x = x * w.to(tl.float32)
        if ROUNDING != COMPILED:
            x = x.to(weight.dtype.element_ty).to(tl.float32)
    place = normed + t * normed_stride + i
    tl.store(carried + t * carried_stride + i, kept.to(carried.dtype.element_ty), mask=inside)
    tl.store(place, x.to(normed.dtype.element_ty), mask=inside)


@dataclass(frozen=True, slots=True, eq=False)
class TritonUpdateNorm:
    """One site's update and the norm behind it as one launch; safe under CUDA graph capture.

    Reads its buffers by address: they may be written between steps but not replaced.
    """

    tensors: SiteTensors
    step: StepTensors
    counts: SiteCounts

    def __call__(
        self,
        hidden: torch.Tensor,
        residual: torch.Tensor,
        norm: Norm,
        normed: torch.Tensor,
        carried: torch.Tensor,
    ) -> None:
        """Write the norm of the edited stream to `normed`, the stream itself to `carried`.

        All are [T, H] and the stream is `hidden + residual`; `normed` may be `hidden` and
        `carried` may be `residual`. The meaning is `interv.codegen.kernels.norm.update_norm`.
        Raises AssertionError for a layout that the compiled graph must not produce.
        """
        check_layout(hidden, residual, self.tensors, self.step)
        for one in (normed, carried):
            assert one.shape == hidden.shape
            assert one.stride(-1) == 1
        weight = norm.weight
        assert weight is None or weight.is_contiguous()
        block = triton.next_power_of_2(hidden.shape[-1])
        _update_norm[(hidden.shape[-2],)](
            hidden,
            residual,
            normed,
            carried,
            hidden if weight is None else weight,
            *(one.stride(-2) for one in (hidden, residual, normed, carried)),
            norm.epsilon,
            buffers(self.tensors, self.step, self.counts),
            WEIGHT=weight is not None,
            ROUNDING=int(norm.rounding),
            **shape(self.tensors, block),
        )
