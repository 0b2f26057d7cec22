"""The search for last repetitions on a GPU: a program takes some rows, and ends when all have one.

Dims: `H` kv heads of all layers and requests together, `S` tokens held, `D` head size.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

# Rows of a program, and the columns that it looks at together.
ROWS, COLUMNS = 32, 64
# Elements of a key that are multiplied at a time.
PART = 16


@triton.jit
def _last_repetitions(
    unit,  # [H, S, D] fp32
    last,  # [H, S] int64, written
    cosine,  # [H, S] fp32, written
    threshold,
    S,
    D,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    keys = unit + tl.program_id(1).to(tl.int64) * S * D
    row = tl.program_id(0) * BLOCK_S + tl.arange(0, BLOCK_S)
    d = tl.arange(0, BLOCK_D)
    # Column 0 where nothing is above the threshold.
    value = tl.zeros([BLOCK_S], tl.float32)
    for part in range(0, D, BLOCK_D):
        inside = part + d < D
        own = tl.load(
            keys + row[:, None] * D + part + d[None, :],
            mask=(row[:, None] < S) & inside[None, :],
            other=0.0,
        )
        first = tl.load(keys + part + d, mask=inside, other=0.0)
        value += tl.sum(own * first[None, :], 1)
    value = tl.where(row == 0, 0.0, value)
    # Rows beyond the last one have theirs.
    at = tl.where(row < S, -1, 0)
    start = (tl.cdiv(S, BLOCK_C) - 1) * BLOCK_C
    while (start >= 0) & (tl.min(at, 0) < 0):
        column = start + tl.arange(0, BLOCK_C)
        similar = tl.zeros([BLOCK_S, BLOCK_C], tl.float32)
        for part in range(0, D, BLOCK_D):
            inside = (part + d < D)[None, :]
            here = part + d[None, :]
            own = tl.load(
                keys + row[:, None] * D + here, mask=(row[:, None] < S) & inside, other=0.0
            )
            other = tl.load(
                keys + column[:, None] * D + here, mask=(column[:, None] < S) & inside, other=0.0
            )
            similar = tl.dot(own, tl.trans(other), similar, input_precision="ieee")
        similar = tl.where(row[:, None] == column[None, :], 0.0, similar)
        hit = (similar > threshold) & (column[None, :] < S)
        latest = tl.max(tl.where(hit, column[None, :], -1), 1)
        there = tl.sum(tl.where(column[None, :] == latest[:, None], similar, 0.0), 1)
        new = (at < 0) & (latest >= 0)
        value = tl.where(new, there, value)
        at = tl.where(new, latest, at)
        start -= BLOCK_C
    place = tl.program_id(1).to(tl.int64) * S + row
    tl.store(last + place, tl.maximum(at, 0).to(tl.int64), mask=row < S)
    tl.store(cosine + place, value, mask=row < S)


def last_repetitions(unit: torch.Tensor, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return of each direction the last other one that is like it, and their cosine.

    `unit` is `[H, S, D]` fp32, both results are `[H, S]`; column 0 where none is above `threshold`.
    """
    unit = unit.contiguous()
    heads, length, size = unit.shape
    last = torch.empty(heads, length, dtype=torch.int64, device=unit.device)
    cosine = torch.empty(heads, length, dtype=torch.float32, device=unit.device)
    launch: Any = _last_repetitions
    launch[(triton.cdiv(length, ROWS), heads)](
        unit,
        last,
        cosine,
        threshold,
        length,
        size,
        BLOCK_S=ROWS,
        BLOCK_C=COLUMNS,
        BLOCK_D=PART,
    )
    return last, cosine
