"""The ops of the intermediate graph: torch functions that are their own meaning.

Each is declared once, in `OPS`: its torch function, the types of its arguments and result, its
formula and its cost. Dims: `T` tokens, `H` hidden size, `K` columns; `n` stands for the layers of
a site that is not resolved yet, in which case streams are `[n, T, H]` and directions `[n, 1, H]`.
Arithmetic is done in at least fp32 and returned in the dtype of the stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from interv.document.sites import Site
from interv.document.spec import Capture
from interv.passes.graph.canonical import probe, update
from interv.passes.graph.column import NOTHING_LEFT
from interv.passes.graph.cyclic_projections import swept
from interv.passes.graph.directions import (
    Adapter,
    Affine,
    Constant,
    Rows,
    Vector,
    across,
    cosine_and_sine,
    unit_vector,
)
from interv.passes.graph.layer_ranges import Sites
from interv.passes.graph.opening import Opening
from interv.passes.graph.selector_masks import Tokens, generated_index, select

Streams: TypeAlias = Mapping[Site, Tensor]


def read(streams: Streams, at: Site | Sites) -> Tensor:
    """Return the stream at a site, `[T, H]`; `[n, T, H]` for a site at n layers."""
    if isinstance(at, Site):
        return streams[at]
    return torch.stack([streams[site] for site in at.expand()])


def write(streams: Streams, at: Site | Sites, h: Tensor) -> Streams:
    """Return the streams with `h`, `[T, H]` or `[n, T, H]`, at that site."""
    if isinstance(at, Site):
        return {**streams, at: h}
    return {**streams, **dict(zip(at.expand(), h, strict=True))}


def emit(streams: Streams, at: Site | Sites, mask: Tensor, capture: Capture) -> Streams:
    """Return the streams as they are; their rows where `mask` `[T]` is set go to a sink."""
    return streams


def direction(vector: Vector, at: Site | Sites) -> Tensor:
    """Return a vector's direction for a site, `[H]` or `[n, 1, H]`, float64."""
    if isinstance(at, Site):
        return torch.from_numpy(vector.at(at.layer))
    return torch.stack([torch.from_numpy(vector.at(s.layer)) for s in at.expand()])[:, None, :]


def unit(v: Tensor) -> Tensor:
    """Return `v / ‖v‖` along the last dim, float64."""
    rows = [torch.from_numpy(unit_vector(row.numpy())) for row in v.reshape(-1, v.shape[-1])]
    return torch.stack(rows).reshape(v.shape)


def constant(value: Constant) -> Tensor:
    """Return a direction whose numbers are known, `[H]`, float64."""
    return torch.from_numpy(value.array)


def adapter(value: Adapter, at: Site | Sites) -> Rows:
    """Return a low-rank adapter's rows for a site: `[r, H]`, `[r]`, `[r, H]`; or `[n, …]`."""
    if isinstance(at, Site):
        return value.at(at.layer)
    each = [value.at(site.layer) for site in at.expand()]
    return Rows(*(torch.stack(part) for part in zip(*each, strict=True)))


def linear_map(value: Adapter, at: Site | Sites) -> Affine:
    """Return a full linear map for a site: `[H, H]` and `[H]`; or `[n, …]`."""
    layers = [at.layer] if isinstance(at, Site) else [site.layer for site in at.expand()]
    maps = [value.map_at(layer) for layer in layers]
    parts = ([one.weight for one in maps], [one.bias for one in maps])
    stacked = Affine(*(torch.from_numpy(np.stack(part)).double() for part in parts))
    return Affine(*(part[0] for part in stacked)) if isinstance(at, Site) else stacked


def gate(h: Tensor, w: Tensor, opening: Opening, mask: Tensor) -> Tensor:
    """Return what an opening makes of `h·w` where `mask` `[T]` is set, 0 elsewhere.

    The result weighs an edit: it stands where a mask can stand, which weighs 1 or 0. A mask that
    is a weight itself is multiplied by it.
    """
    wide = _widen(h)
    p = (wide * w.to(wide.dtype)).sum(-1)
    opened = opening.weight(p, wide.norm(dim=-1)) * mask.to(wide.dtype)
    return torch.where(mask != 0, opened, 0.0)


def decay(tokens: Tokens, rate: float, mask: Tensor) -> Tensor:
    """Return `rate ** i` where `mask` `[T]` is set, i being a generated token's index, else 0.

    A token of the prompt has index 0, and so has the first that is generated: `generated[0]`.
    """
    share = torch.exp2(math.log2(rate) * generated_index(tokens).double())
    return torch.where(mask, share, 0.0)


def steer(h: Tensor, v: Tensor, scale: float, mask: Tensor) -> Tensor:
    """Return `h + scale·v` where `mask` `[T]` is set, `h` elsewhere."""
    wide = _widen(h)
    return _where(mask, wide + _weighed(scale, mask, wide) * v.to(wide.dtype), h)


def steer_keeping_norm(h: Tensor, v: Tensor, scale: float, mask: Tensor) -> Tensor:
    """Return `(h + scale·v)·‖h‖/‖h + scale·v‖` where `mask` is set; of nothing, nothing."""
    wide = _widen(h)
    moved = wide + _weighed(scale, mask, wide) * v.to(wide.dtype)
    return _where(mask, _rescaled(moved, wide), h)


def steer_by_norm(h: Tensor, u: Tensor, scale: float, mask: Tensor) -> Tensor:
    """Return `h + scale·‖h‖·u` where `mask` is set."""
    wide = _widen(h)
    amount = _weighed(scale, mask, wide) * wide.norm(dim=-1, keepdim=True)
    return _where(mask, wide + amount * u.to(wide.dtype), h)


def steer_by_norm_keeping_norm(h: Tensor, u: Tensor, scale: float, mask: Tensor) -> Tensor:
    """Return `steer_by_norm`, scaled to the norm of `h`."""
    wide = _widen(h)
    return _where(mask, _rescaled(steer_by_norm(wide, u, scale, mask), wide), h)


def cap(h: Tensor, u: Tensor, low: float, high: float, strength: float, mask: Tensor) -> Tensor:
    """Return `h + strength·(clamp(p, low, high) - p)·u` with `p = h·u` where `mask` is set."""
    wide = _widen(h)
    u = u.to(wide.dtype)
    p = (wide * u).sum(-1, keepdim=True)
    moved = _weighed(strength, mask, wide) * (p.clamp(low, high) - p) * u
    return _where(mask, wide + moved, h)


def ablate(h: Tensor, u: Tensor, strength: float, mask: Tensor) -> Tensor:
    """Return `h - strength·(h·u)·u` where `mask` is set."""
    wide = _widen(h)
    u = u.to(wide.dtype)
    p = (wide * u).sum(-1, keepdim=True)
    return _where(mask, wide - _weighed(strength, mask, wide) * p * u, h)


def ablate_keeping_norm(h: Tensor, u: Tensor, strength: float, mask: Tensor) -> Tensor:
    """Return `ablate`, scaled to the norm of `h`; where nothing is left, nothing."""
    wide = _widen(h)
    return _where(mask, _rescaled(ablate(wide, u, strength, mask), wide), h)


def ablate_over(h: Tensor, u: Tensor, strength: float, mask: Tensor) -> Tensor:
    """Return `ablate`, whose strength may be above 1, and whatever a request makes of it."""
    return ablate(h, u, strength, mask)


def ablate_over_keeping_norm(h: Tensor, u: Tensor, strength: float, mask: Tensor) -> Tensor:
    """Return `ablate_over`, scaled to the norm of `h`."""
    return ablate_keeping_norm(h, u, strength, mask)


def replace(h: Tensor, v: Tensor, scale: float, strength: float, mask: Tensor) -> Tensor:
    """Return `h + strength·(scale·v - h)` where `mask` is set."""
    wide = _widen(h)
    moved = _weighed(strength, mask, wide) * (scale * v.to(wide.dtype) - wide)
    return _where(mask, wide + moved, h)


def exchange(h: Tensor, a: Tensor, b: Tensor, strength: float, mask: Tensor) -> Tensor:
    """Return `h + strength·(h·a/‖a‖²)·(b - a)` where `mask` is set: concept a becomes b."""
    wide = _widen(h)
    a, b = a.to(wide.dtype), b.to(wide.dtype)
    share = (wide * a).sum(-1, keepdim=True) / (a * a).sum(-1, keepdim=True)
    return _where(mask, wide + _weighed(strength, mask, wide) * share * (b - a), h)


def rotate(
    h: Tensor, u: Tensor, w: Tensor, degrees: float, low: float, strength: float, mask: Tensor
) -> Tensor:
    """Return `h + strength·(‖Ph‖·(cos·u + sin·b) - Ph)` where `mask` is set and `h·u > low`.

    `b` is the part of `w` across `u` at length 1, `P` the projection on the plane of both: the
    stream turns to that angle in it and keeps its length. (Angular steering, arXiv 2510.26243.)
    """
    wide = _widen(h)
    rows = zip(u.reshape(-1, u.shape[-1]), w.reshape(-1, w.shape[-1]), strict=True)
    found = [torch.from_numpy(across(one.numpy(), two.numpy())[0]) for one, two in rows]
    b = torch.stack(found).reshape(w.shape).to(wide.dtype)
    u = u.to(wide.dtype)
    p, q = (wide * u).sum(-1, keepdim=True), (wide * b).sum(-1, keepdim=True)
    cos, sin = cosine_and_sine(degrees)
    length = torch.sqrt(p**2 + q**2)
    moved = (cos * length - p) * u + (sin * length - q) * b
    return _where(mask, wide + _weighed(strength, mask, wide) * torch.where(p > low, moved, 0.0), h)


def low_rank(h: Tensor, rows: Rows, scale: float, mask: Tensor) -> Tensor:
    """Return `h + scale·((h readᵀ + bias) write)` where `mask` is set: all rows read one h."""
    wide = _widen(h)
    read, bias, write = (part.to(wide.dtype) for part in rows)
    p = wide @ read.transpose(-1, -2) + bias.unsqueeze(-2)
    return _where(mask, wide + _weighed(scale, mask, wide) * (p @ write), h)


def linear(h: Tensor, full: Affine, scale: float, mask: Tensor) -> Tensor:
    """Return `h + scale·((h weightᵀ + bias) - h)` where `mask` is set."""
    wide = _widen(h)
    weight, bias = (part.to(wide.dtype) for part in full)
    mapped = wide @ weight.transpose(-1, -2) + bias.unsqueeze(-2)
    return _where(mask, wide + _weighed(scale, mask, wide) * (mapped - wide), h)


def joint(
    h: Tensor,
    directions: Sequence[Tensor],
    lows: Sequence[float],
    highs: Sequence[float],
    mask: Tensor,
) -> Tensor:
    """Return the stream nearest to `h` with `low <= h'·u <= high` for all, where `mask` is set.

    `h' = h + Σ cⱼ·uⱼ`, with the coefficients of `interv.passes.graph.cyclic_projections`.
    """
    wide = _widen(h)
    bank = torch.stack([u.to(wide.dtype) for u in directions])  # [K, H]
    gram, p = bank @ bank.T, wide @ bank.T  # [K, K], [T, K]
    gram.fill_diagonal_(0.0)
    c = swept(p, gram, lows, highs, torch.ones_like(p, dtype=torch.bool))
    return _where(mask, wide + c @ bank, h)


def combine(h: Tensor, edited: Sequence[Tensor]) -> Tensor:
    """Return `h + Σ (e - h)`: edits that all read the original, added up."""
    wide = _widen(h)
    total = wide
    for one in edited:
        total = total + (one.to(wide.dtype) - wide)
    return total.to(h.dtype)


def _widen(h: Tensor) -> Tensor:
    return h.to(torch.promote_types(h.dtype, torch.float32))


def _weighed(factor: float, mask: Tensor, wide: Tensor) -> Tensor:
    """Return a factor times the weight of each token, `[…, T, 1]`."""
    return factor * mask.to(wide.dtype)[..., None]


def _rescaled(moved: Tensor, h: Tensor) -> Tensor:
    """Return `moved` at the length of `h`, where more than a rounding error is left of it."""
    before, after = (x.norm(dim=-1, keepdim=True) for x in (h, moved))
    return moved * torch.where(after > NOTHING_LEFT * before, before / after, 1.0)


def _where(mask: Tensor, edited: Tensor, h: Tensor) -> Tensor:
    return torch.where((mask != 0)[..., None], edited.to(h.dtype), h)


def _nothing(hidden_size: int, columns: int) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Op:
    """One op: meaning, types, formula, and cost for one token.

    `flops` and `elements` take the width H and the number of columns K; `elements` counts what
    is read and written of the stream, of both its halves where there are two.
    """

    fn: Callable[..., Any]
    args: tuple[str, ...]
    result: str
    formula: str
    flops: Callable[[int, int], int] = _nothing
    elements: Callable[[int, int], int] = _nothing

    @property
    def name(self) -> str:
        """Return the name under which the op prints."""
        return str(self.fn.__name__)


def _edit(fn: Callable[..., Any], args: str, formula: str, flops: int) -> Op:
    """Declare an edit of the stream: it reads one and gives one, at so many flops an element."""
    return Op(
        fn,
        ("stream", *args.split(), "mask"),
        "stream",
        formula,
        flops=lambda H, K: flops * K * H,
        elements=lambda H, K: 2 * H,
    )


_CAP = "h + strength·(clamp(h·û, low, high) − h·û)·û"
_ROTATE = "h + strength·(‖Ph‖·(cos·û + sin·ŵ) − Ph)"
_ABLATE = "h − strength·(h·û)·û"
_KEPT = ", then scaled to ‖h‖"
_DECLARED = (
    Op(read, ("streams", "site"), "stream", "h", elements=lambda H, K: 2 * H),
    Op(select, ("tokens", "selector"), "mask", "m"),
    Op(direction, ("vector", "site"), "direction", "v"),
    Op(unit, ("direction",), "direction", "v/‖v‖"),
    Op(constant, ("constant",), "direction", "v"),
    Op(adapter, ("adapter", "site"), "rows", "A, bias, B"),
    Op(linear_map, ("adapter", "site"), "map", "W, b"),
    Op(decay, ("tokens", "number", "mask"), "mask", "rate^i"),
    Op(
        gate,
        ("stream", "direction", "opening", "mask"),
        "mask",
        "sigmoid(sharpness·(h·w − threshold))",
        flops=lambda H, K: 2 * H,
        elements=lambda H, K: H,
    ),
    _edit(steer, "direction number", "h + scale·v", 2),
    _edit(steer_keeping_norm, "direction number", "(h + scale·v)·‖h‖/‖h + scale·v‖", 7),
    _edit(steer_by_norm, "direction number", "h + scale·‖h‖·û", 4),
    _edit(steer_by_norm_keeping_norm, "direction number", f"(h + scale·‖h‖·û){_KEPT}", 8),
    _edit(cap, "direction number number number", _CAP, 4),
    _edit(ablate, "direction number", _ABLATE, 4),
    _edit(ablate_keeping_norm, "direction number", f"({_ABLATE}){_KEPT}", 9),
    _edit(ablate_over, "direction number", _ABLATE, 4),
    _edit(ablate_over_keeping_norm, "direction number", f"({_ABLATE}){_KEPT}", 9),
    _edit(replace, "direction number number", "h + strength·(scale·v − h)", 3),
    _edit(exchange, "direction direction number", "h + strength·(h·a/‖a‖²)·(b − a)", 5),
    _edit(rotate, "direction direction number number number", _ROTATE, 8),
    _edit(low_rank, "rows number", "h + scale·(A h + bias) B", 4),
    # A column of no directions; its matmul is a launch of its own before the update of its site.
    Op(
        linear,
        ("stream", "map", "number", "mask"),
        "stream",
        "h + scale·(W h + b − h)",
        flops=lambda H, K: 2 * K * H * H,
        elements=lambda H, K: 3 * H,
    ),
    _edit(joint, "direction* numbers numbers", "h + Σ cⱼ·ûⱼ, least ‖c·û‖ with all in bounds", 4),
    Op(
        combine,
        ("stream", "stream*"),
        "stream",
        "h + Σ (eᵢ − h)",
        flops=lambda H, K: 2 * K * H,
        elements=lambda H, K: (K + 2) * H,
    ),
    # Reads `hidden` and `residual`, writes `hidden`; a launch that does its own read and write.
    Op(
        update,
        ("stream", "direction*", "mask*", "columns"),
        "stream",
        "ρ·h + Σ cⱼ·bⱼ  with  cⱼ = φⱼ(aⱼ·h + Σ (aⱼ·bᵢ)·cᵢ)",
        flops=lambda H, K: 4 * K * H,
        elements=lambda H, K: 3 * H,
    ),
    # What a gate of that update weighs; it is computed there and costs nothing of its own.
    Op(probe, ("stream", "direction*", "mask*", "columns", "column"), "mask", "gⱼ"),
    Op(
        emit,
        ("streams", "site", "mask", "capture"),
        "streams",
        "the streams, with rows of h at the site copied out",
        elements=lambda H, K: 3 * H,
    ),
    Op(
        write,
        ("streams", "site", "stream"),
        "streams",
        "the streams, with h at the site",
        elements=lambda H, K: H,
    ),
)

OPS: Mapping[str, Op] = MappingProxyType({op.name: op for op in _DECLARED})

# The edits of the stream: the ops that a statement of a program becomes.
ABLATIONS = (ablate, ablate_keeping_norm, ablate_over, ablate_over_keeping_norm)
EDITS = (
    *(steer, steer_keeping_norm, steer_by_norm, steer_by_norm_keeping_norm),
    *(cap, *ABLATIONS, replace, exchange, rotate, low_rank, linear, joint),
)
# The edits that read the stream they change; an add does not.
READERS = EDITS[1:]
