"""The ops of the intermediate graph: torch functions that are their own meaning.

Each is declared once, in `OPS`: its torch function, the types of its arguments and result, its
formula and its cost. Dims: `T` tokens, `H` hidden size, `K` columns; `n` stands for the layers of
a site that is not resolved yet, in which case streams are `[n, T, H]` and directions `[n, 1, H]`.
Arithmetic is done in at least fp32 and returned in the dtype of the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from interv.passes.columns import Form
from interv.passes.constants import Constant, Vector, unit_vector
from interv.passes.layers import Sites
from interv.passes.select import select
from interv.sites import Site

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


def steer(h: Tensor, v: Tensor, scale: float, mask: Tensor) -> Tensor:
    """Return `h + scale·v` where `mask` `[T]` is set, `h` elsewhere."""
    wide = _widen(h)
    return _where(mask, wide + scale * v.to(wide.dtype), h)


def cap(h: Tensor, u: Tensor, low: float, high: float, strength: float, mask: Tensor) -> Tensor:
    """Return `h + strength·(clamp(p, low, high) - p)·u` with `p = h·u` where `mask` is set."""
    wide = _widen(h)
    u = u.to(wide.dtype)
    p = (wide * u).sum(-1, keepdim=True)
    return _where(mask, wide + strength * (p.clamp(low, high) - p) * u, h)


def ablate(h: Tensor, u: Tensor, strength: float, mask: Tensor) -> Tensor:
    """Return `h - strength·(h·u)·u` where `mask` is set."""
    wide = _widen(h)
    u = u.to(wide.dtype)
    return _where(mask, wide - strength * (wide * u).sum(-1, keepdim=True) * u, h)


def combine(h: Tensor, edited: Sequence[Tensor]) -> Tensor:
    """Return `h + Σ (e - h)`: edits that all read the original, added up."""
    wide = _widen(h)
    total = wide
    for one in edited:
        total = total + (one.to(wide.dtype) - wide)
    return total.to(h.dtype)


def update(
    h: Tensor, directions: Sequence[Tensor], masks: Sequence[Tensor], columns: Sequence[Form]
) -> Tensor:
    """Return the rank-K update: K dots on the original `h`, one write.

    `directions` are V rows `[H]`, `masks` one `[T]` a column. With `p = A h` and the Gram
    `G_ji = a_j·b_i`, column j reads `p_j + Σ G_ji c_i` over the earlier columns it sees, which is
    what it would have read after them, and `h' = h + Σ c_j b_j`. Rows that no mask selects keep
    their bits.
    """
    wide = _widen(h)
    bank = torch.stack([row.to(wide.dtype) for row in directions])  # [V, H]
    a = bank[[max(column.a, 0) for column in columns]]  # [K, H]
    b = bank[[column.b for column in columns]]  # [K, H]
    p, gram = wide @ a.T, a @ b.T  # [T, K], [K, K]
    c = torch.zeros_like(p)  # [T, K]
    for j, column in enumerate(columns):
        seen = [i for i in range(j) if column.sees >> i & 1]
        at = p[:, j] + c[:, seen] @ gram[j, seen]
        at = torch.zeros_like(at) if column.a < 0 else at
        c[:, j] = torch.where(masks[j], phi(column, at), 0.0)
    return _where(torch.stack(list(masks)).any(0), wide + c @ b, h)


def phi(column: Form, p: Tensor) -> Tensor:
    """Return the coefficient of a column that reads `p` `[T]`."""
    return column.alpha + column.beta * p + column.strength * (p.clamp(column.low, column.high) - p)


def _widen(h: Tensor) -> Tensor:
    return h.to(torch.promote_types(h.dtype, torch.float32))


def _where(mask: Tensor, edited: Tensor, h: Tensor) -> Tensor:
    return torch.where(mask[:, None], edited.to(h.dtype), h)


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


_DECLARED = (
    Op(read, ("streams", "site"), "stream", "h", elements=lambda H, K: 2 * H),
    Op(select, ("tokens", "selector"), "mask", "m"),
    Op(direction, ("vector", "site"), "direction", "v"),
    Op(unit, ("direction",), "direction", "v/‖v‖"),
    Op(constant, ("constant",), "direction", "v"),
    Op(
        steer,
        ("stream", "direction", "number", "mask"),
        "stream",
        "h + scale·v",
        flops=lambda H, K: 2 * H,
        elements=lambda H, K: 2 * H,
    ),
    Op(
        cap,
        ("stream", "direction", "number", "number", "number", "mask"),
        "stream",
        "h + strength·(clamp(h·û, low, high) − h·û)·û",
        flops=lambda H, K: 4 * H,
        elements=lambda H, K: 2 * H,
    ),
    Op(
        ablate,
        ("stream", "direction", "number", "mask"),
        "stream",
        "h − strength·(h·û)·û",
        flops=lambda H, K: 4 * H,
        elements=lambda H, K: 2 * H,
    ),
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
        "h + Σ cⱼ·bⱼ  with  cⱼ = φⱼ(aⱼ·h + Σ (aⱼ·bᵢ)·cᵢ)",
        flops=lambda H, K: 4 * K * H,
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
EDITS = (steer, cap, ablate)
# The edits that read the stream they change; an add does not.
READERS = (cap, ablate)
