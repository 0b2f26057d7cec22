"""The Triton form of the update: one program a token, the stream read once and written once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from interv.codegen.tables import SiteTensors
from interv.passes.plan import MAX_COLUMNS


@triton.jit
def _update(
    hidden,  # [T, H], written
    residual,  # [T, H]; hidden again where there is none
    slot,  # [T] int32
    mask,  # [T] int64
    bank,  # [V, H] float32
    gram,  # [V, V] float32
    a,  # [S, K] int32
    b,  # [S, K] int32
    coef,  # [S, K, 5] float32
    bit,  # [S, K] int64
    sees,  # [S, K] int64
    count,  # [S] int32
    edited,  # [S] int64
    rows,
    width,
    H,
    hidden_stride,
    residual_stride,
    PAIR: tl.constexpr,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    t = tl.program_id(0).to(tl.int64)
    s = tl.load(slot + t).to(tl.int64)
    if s < 0:
        return
    bits = tl.load(mask + t)
    n = tl.load(count + s)
    k = tl.arange(0, BLOCK_K)  # [K]
    at = s * width
    on = (tl.load(bit + at + k, mask=k < n, other=0) & bits) != 0
    if tl.sum(on.to(tl.int32), 0) == 0:
        return
    written = tl.load(b + at + k, mask=k < n, other=0)  # [K]
    i = tl.arange(0, BLOCK_H)  # [H]
    inside = i < H
    own = tl.load(hidden + t * hidden_stride + i, mask=inside, other=0.0).to(tl.float32)
    h = own
    if PAIR:
        h += tl.load(residual + t * residual_stride + i, mask=inside, other=0.0).to(tl.float32)
    c = tl.zeros([BLOCK_K], tl.float32)
    for j in tl.static_range(K):
        if j < n:
            row = tl.load(a + at + j).to(tl.int64)
            p = 0.0
            if row >= 0:
                p += tl.sum(h * tl.load(bank + row * H + i, mask=inside, other=0.0), 0)
                seen = ((tl.load(sees + at + j) >> k) & 1) != 0
                g = tl.load(gram + row * rows + written, mask=seen & (k < n), other=0.0)
                p += tl.sum(g * c, 0)
            base = coef + (at + j) * 5
            low, high = tl.load(base + 3), tl.load(base + 4)
            clamped = tl.minimum(tl.maximum(p, low), high)
            phi = tl.load(base) + tl.load(base + 1) * p + tl.load(base + 2) * (clamped - p)
            c = tl.where((k == j) & on, phi, c)
    if tl.sum((c != 0.0).to(tl.int32), 0) > 0:
        for j in tl.static_range(K):
            if j < n:
                scale = tl.sum(tl.where(k == j, c, 0.0), 0)
                row = tl.load(b + at + j).to(tl.int64)
                own += scale * tl.load(bank + row * H + i, mask=inside, other=0.0)
        tl.store(hidden + t * hidden_stride + i, own.to(hidden.dtype.element_ty), mask=inside)
        tl.atomic_add(edited + s, 1)


@dataclass(frozen=True, slots=True, eq=False)
class TritonUpdate:
    """One site's update as a Triton launch; safe under CUDA graph capture.

    Reads its buffers by address: they may be written between steps but not replaced.
    """

    tensors: SiteTensors
    slot: torch.Tensor  # [T max] int32
    mask: torch.Tensor  # [T max] int64
    edited: torch.Tensor  # [S] int64

    def __call__(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        """Add every token's edits to `hidden` [T, H] in place; the stream is `hidden + residual`.

        Raises AssertionError for a layout that the compiled graph must not produce.
        """
        tokens, size = hidden.shape[-2:]
        assert hidden.stride(-1) == 1
        assert tokens <= self.slot.shape[0]
        assert self.tensors.width <= MAX_COLUMNS
        if residual is not None:
            assert residual.shape == hidden.shape
            assert residual.stride(-1) == 1
        _launch(self, hidden, residual, tokens, size)


def _launch(own: TritonUpdate, hidden: Any, residual: Any, tokens: int, size: int) -> None:
    x = own.tensors
    other = hidden if residual is None else residual
    block = triton.next_power_of_2(size)
    _update[(tokens,)](
        hidden,
        other,
        own.slot,
        own.mask,
        x.bank,
        x.gram,
        x.a,
        x.b,
        x.coef,
        x.bit,
        x.sees,
        x.count,
        own.edited,
        x.bank.shape[0],
        x.width,
        size,
        hidden.stride(-2),
        other.stride(-2),
        PAIR=residual is not None,
        K=x.width,
        BLOCK_K=triton.next_power_of_2(max(2, x.width)),
        BLOCK_H=block,
        num_warps=warps(block),
        # Said outright, because the default differs between Triton's versions.
        enable_fp_fusion=True,
    )


def warps(block: int) -> int:
    """Return the warps of a program: 16 elements a thread, so that two rows stay in registers."""
    return min(16, max(1, block // 512))
