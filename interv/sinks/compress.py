"""Smaller forms of captured rows, and the rows that reading them gives back.

Pure functions of one part's rows X [m, d]. Each form's error is ‖X − X̂‖_F / ‖X‖_F in float64,
where X̂ are the rows that reading gives back, in the stored dtype; 0 where X is zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch

from interv.sinks.schema import Form

Quantize: TypeAlias = Literal["none", "int8", "fp8"]
INT8_TOP = 127.0
FP8_TOP = 448.0  # the largest value of e4m3 without infinities


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Rows in one form: its tensors by name, its error, and why a wanted form was not taken."""

    form: Form
    tensors: Mapping[str, torch.Tensor]
    error: float = 0.0
    rank: int | None = None
    why: str = ""


def pack(rows: torch.Tensor, rank: int | None, quantize: Quantize) -> Packed:
    """Return rows [m, d] in the wanted form where it is smaller, else whole.

    `rank` comes first; `quantize` takes what the rank did not make smaller. Rows with NaN or
    infinity stay whole, since no form could say how wrong it is.
    """
    assert rows.ndim == 2
    if rank is None and quantize == "none":
        return _whole(rows, "")
    if not bool(torch.isfinite(rows).all()):
        return _whole(rows, "not all values are finite")
    why = ""
    if rank is not None:
        if saves_space(rank, *rows.shape):
            return _sound(low_rank(rows, rank), rows)
        why = f"rank {rank} of {rows.shape[0]} x {rows.shape[1]} saves no space"
    if quantize == "none":
        return _whole(rows, why)
    packed = quantized(rows, quantize)
    if _bytes(packed) >= rows.nbytes:
        return _whole(rows, why or f"{quantize} saves no space")
    return _sound(replace(packed, why=why), rows)


def unpack(form: Form, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """Return the rows [m, d] of a form, in `dtype`."""
    if form == "whole":
        return tensors["rows"].to(dtype)
    if form == "low_rank":
        return (tensors["us"].float() @ tensors["v"].float()).to(dtype)
    return (tensors["q"].float() * tensors["scale"][:, None]).to(dtype)


def saves_space(rank: int, m: int, d: int) -> bool:
    """Say whether k singular triples are fewer numbers than m x d rows: k(m + d + 1) < m·d."""
    return rank * (m + d + 1) < m * d


def low_rank(rows: torch.Tensor, rank: int) -> Packed:
    """Return the truncated singular value decomposition of rows [m, d]: `us` [m, k], `v` [k, d].

    It is taken in float32 and stored in the rows' own dtype. Only float16, whose range singular
    values can leave, has factors in float32.
    """
    try:
        left, values, right = torch.linalg.svd(rows.float(), full_matrices=False)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return _whole(rows, "its decomposition does not converge")
    kept = torch.float32 if rows.dtype == torch.float16 else rows.dtype
    us = (left[:, :rank] * values[:rank]).to(kept).contiguous()
    tensors = {"us": us, "v": right[:rank].to(kept).contiguous()}
    if not all(bool(torch.isfinite(one).all()) for one in tensors.values()):
        return _whole(rows, "its decomposition is not finite")
    if sum(one.nbytes for one in tensors.values()) >= rows.nbytes:
        return _whole(rows, f"rank {rank} of {rows.shape[0]} x {rows.shape[1]} saves no space")
    back = unpack("low_rank", tensors, rows.dtype)
    return Packed("low_rank", tensors, relative_error(rows, back), rank)


def quantized(rows: torch.Tensor, kind: Literal["int8", "fp8"]) -> Packed:
    """Return rows [m, d] as 8 bits `q` [m, d] with a float32 `scale` [m]: X̂ = q · scale.

    `int8` is symmetric, scale = max|x| / 127; `fp8` is e4m3, scale = max|x| / 448. A row whose
    scale is below the least float32 is stored as zeros.
    """
    top = INT8_TOP if kind == "int8" else FP8_TOP
    wide = rows.double()
    largest = wide.abs().amax(dim=1) if rows.shape[1] else wide.new_zeros(rows.shape[0])
    scale = (largest / top).float()
    steps = wide / torch.where(scale > 0, scale, 1)[:, None].double()
    steps = torch.where(scale[:, None] > 0, steps, 0).clamp(-top, top)
    q = steps.round().to(torch.int8) if kind == "int8" else steps.float().to(torch.float8_e4m3fn)
    tensors = {"q": q, "scale": scale}
    return Packed(kind, tensors, relative_error(rows, unpack(kind, tensors, rows.dtype)))


def relative_error(rows: torch.Tensor, back: torch.Tensor) -> float:
    """Return ‖rows − back‖_F / ‖rows‖_F, computed in float64; 0 where the rows are zero."""
    size = float(torch.linalg.vector_norm(rows.double()))
    if size == 0:
        return 0.0
    return float(torch.linalg.vector_norm(rows.double() - back.double())) / size


def _sound(packed: Packed, rows: torch.Tensor) -> Packed:
    """Return `packed`, or whole rows where values at the end of their range did not come back."""
    if math.isfinite(packed.error):
        return packed
    return _whole(rows, f"as {packed.form} values leave the range of {rows.dtype}")


def _whole(rows: torch.Tensor, why: str) -> Packed:
    return Packed("whole", {"rows": rows.contiguous()}, why=why)


def _bytes(packed: Packed) -> int:
    return sum(tensor.nbytes for tensor in packed.tensors.values())
