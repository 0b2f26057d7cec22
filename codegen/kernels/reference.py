"""The update of one site on slots and masks, as plain torch: what every kernel must equal.

A token's columns are taken in order over three rows of numbers: `c` (weights of the directions
that are added), `d` (weights of the stream `h` itself) and `g` (gates). Behind any of them the
stream is `(1 + Σ d) h + Σ c_i bank[b_i]`, so that what a column reads, and the norm of it, follow
from dots with `h` and the Gram of the bank: one read, one write.

Dims: `T` tokens with a slot, `R` of them that a column edits, `K` columns, `V` bank rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from interv.codegen.tables import FLOAT32, INT32, INT64, SiteCounts, SiteTensors, StepTensors
from interv.passes.graph.column import NOTHING_LEFT, Kind, Mode
from interv.passes.graph.cyclic_projections import SWEEPS, still
from interv.passes.placing.plan import GATES

# When the cyclic projections of a JOINT block end: at a step of this part of the largest reading.
JOINT_STEP = still(torch.float32)


def update(
    hidden: Tensor,  # [T, H], written
    residual: Tensor | None,  # [T, H]
    step: StepTensors,
    site: SiteTensors,
    counts: SiteCounts | None = None,
) -> None:
    """Apply every token's edits to `hidden` in place; the stream is `hidden + residual`.

    Vectors are handled in float32, or in float64 for a float64 stream, scalars in float64. A
    token whose weights are all zero is not written, so that its bits stay as they were. A row
    counts for a program if any weight of the program's columns is not zero.
    """
    slot = step.slot[: hidden.shape[0]]
    live = (slot >= 0).nonzero().flatten()
    if live.numel() == 0:
        return
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    own = hidden[live].to(wide)
    h = own if residual is None else own + residual[live].to(wide)
    work = _work(h, live, step, site)
    for j in range(site.width):
        _column(work, j)
    c, d = work.c.to(wide), work.d.sum(dim=1, keepdim=True).to(wide)
    fired = (c != 0) | (work.d != 0)
    kept = torch.where(d != 0, own + d * h, own)
    touched = fired.any(dim=1)
    edited = kept + _spread(c, work.columns["b"], len(site.bank)) @ site.bank.to(wide)
    hidden[live[touched]] = edited[touched].to(hidden.dtype)
    if counts is not None:
        _count(fired, work.columns["program"], step.seat[live].long(), counts)


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """The columns of T tokens, what they read of the stream, and the weights found so far."""

    h: Tensor  # [T, H]
    bank: Tensor  # [V, H], as wide as `h`
    columns: dict[str, Tensor]  # [T, K] each field; indices are int64, scalars float64
    on: Tensor  # [T, K] bool
    live: Tensor  # [T], the tokens' places in the step
    index: Tensor  # [T] float64, how many generated tokens come before each
    gate: Tensor  # [step's T, G] float32, written
    dots: Tensor  # [T, V] float64, bank·h
    gram: Tensor  # [V, V] float64
    c: Tensor  # [T, K] float64
    d: Tensor  # [T, K] float64
    g: Tensor  # [T, K] float64


def _work(h: Tensor, live: Tensor, step: StepTensors, site: SiteTensors) -> _Work:
    s, mask = step.slot[live].long(), step.mask[live][:, None]
    columns = {name: site.field(name)[s] for name in (*INT32, *INT64, *FLOAT32)}
    columns |= {name: columns[name].long() for name in INT32}
    columns |= {name: columns[name].double() for name in FLOAT32}
    inside = torch.arange(site.width, device=h.device) < site.count[s][:, None]
    # Beyond a slot's count there may be anything.
    columns |= {name: torch.where(inside, columns[name], -1) for name in INT32}
    on = inside & ((mask & columns["bit"]) != 0) & ((mask & columns["unless"]) == 0)
    bank = site.bank.to(h.dtype)
    exact = h.dtype == torch.float64
    gram = bank @ bank.T if exact else site.gram.double()
    c, d, g = torch.zeros(3, *on.shape, dtype=torch.float64, device=h.device)
    dots = (h @ bank.T).double()
    index = step.index[live].double()
    return _Work(h, bank, columns, on, live, index, step.gate, dots, gram, c, d, g)


def _column(work: _Work, j: int) -> None:
    """Find the weights of column j of every token, each by its kind."""
    kind, on = work.columns["kind"][:, j], work.on[:, j]
    for one, meaning in _MEANING.items():
        rows = (on & (kind == one)).nonzero().flatten()
        if rows.numel():
            meaning(work, rows, j)


def _add(work: _Work, rows: Tensor, j: int) -> None:
    work.c[rows, j] = _weight(work, rows, j) * _phi(work, rows, j)


def _phi(work: _Work, rows: Tensor, j: int) -> Tensor:
    """Return what column j adds without a gate, [R]."""
    alpha, beta, strength, low, high = _scalars(work, rows, j)
    p = _reads(work, rows, j)
    share = _has(work, rows, j, Mode.SHARE)
    alpha[share] *= _stream(work, rows[share], j).norm(dim=1)
    return alpha + beta * p + strength * (torch.clamp(p, low, high) - p)


def _gate(work: _Work, rows: Tensor, j: int) -> None:
    sharpness, _, _, low, high = _scalars(work, rows, j)
    p = _reads(work, rows, j)
    cosine = _has(work, rows, j, Mode.COSINE)
    length = _stream(work, rows[cosine], j).norm(dim=1)
    p[cosine] = torch.where(length != 0, p[cosine] / length, 0)
    p = torch.where(_has(work, rows, j, Mode.ABSOLUTE), p.abs(), p)
    inside = ((low < p) & (p < high)).double()
    weight = torch.where(
        _has(work, rows, j, Mode.STEP), inside, torch.sigmoid(sharpness * (p - low))
    )
    fading = torch.exp2(sharpness * work.index[rows])
    weight = torch.where(_has(work, rows, j, Mode.DECAY), fading, weight)
    weight = weight * _weight(work, rows, j)
    work.g[rows, j] = weight
    store = work.columns["store"][rows, j]
    kept = store >= 0
    work.gate[work.live[rows[kept]], store[kept]] = weight[kept].to(work.gate.dtype)


def _keep_norm(work: _Work, rows: Tensor, j: int) -> None:
    s = _weight(work, rows, j) * _phi(work, rows, j)
    rows, s = rows[s != 0], s[s != 0]
    seen, rho = _seen(work, rows, j)
    y = _stream(work, rows, j)
    after = (y + s[:, None] * work.bank[work.columns["b"][rows, j]].double()).norm(dim=1)
    before = y.norm(dim=1)
    r = torch.where(after > NOTHING_LEFT * before, before / after, 1)
    work.d[rows, j] = (r - 1) * rho
    work.c[rows] = torch.where(seen, work.c[rows] * r[:, None], work.c[rows])
    work.c[rows, j] = r * s


def _replace(work: _Work, rows: Tensor, j: int) -> None:
    w = _weight(work, rows, j) * work.columns["strength"][rows, j]
    seen, rho = _seen(work, rows, j)
    work.d[rows, j] = -w * rho
    work.c[rows] = torch.where(seen, work.c[rows] * (1 - w)[:, None], work.c[rows])
    work.c[rows, j] = w * work.columns["alpha"][rows, j]


def _joint(work: _Work, rows: Tensor, j: int) -> None:
    """Solve the blocks that begin at column j, and do their strength of what that takes."""
    size = work.columns["block"][rows, j]
    rows, size = rows[size > 0], size[size > 0]
    _project(work, rows, size, j)
    places = torch.arange(work.on.shape[1], device=rows.device)
    inside = (places >= j) & (places < j + size[:, None])
    work.c[rows] *= torch.where(inside, work.columns["strength"][rows], 1)


def _project(work: _Work, rows: Tensor, size: Tensor, j: int) -> None:
    """Cap each column of a block in turn until none moves (Hildreth's cyclic projections)."""
    largest = torch.zeros_like(work.dots[rows, 0])
    for sweep in range(SWEEPS):
        if rows.numel() == 0:
            return
        moved = torch.zeros_like(largest)
        for i in range(j, j + int(size.max())):
            inside = (i < j + size) & work.on[rows, i]
            some = rows[inside]
            p = _reads(work, some, i)
            _, _, _, low, high = _scalars(work, some, i)
            c = torch.clamp(p, low, high) - p
            moved[inside] = torch.maximum(moved[inside], (c - work.c[some, i]).abs())
            work.c[some, i] = c
            if sweep == 0:
                largest[inside] = torch.maximum(largest[inside], p.abs())
        on = moved > JOINT_STEP * largest
        rows, size, largest = rows[on], size[on], largest[on]


def _rotate(work: _Work, rows: Tensor, j: int) -> None:
    """Turn what column j and the next read to their angle, where column j is the first of two."""
    rows = rows[work.columns["block"][rows, j] > 0]
    if rows.numel() == 0:
        return
    p, q = _reads(work, rows, j), _reads(work, rows, j + 1)
    length = torch.sqrt(p**2 + q**2)
    w = _weight(work, rows, j) * work.columns["strength"][rows, j]
    w = torch.where(p > work.columns["low"][rows, j], w, 0)
    for i, reading in ((j, p), (j + 1, q)):
        work.c[rows, i] = w * (work.columns["alpha"][rows, i] * length - reading)


_MEANING: MappingProxyType[Kind, Callable[[_Work, Tensor, int], None]] = MappingProxyType(
    {
        Kind.ADD: _add,
        Kind.GATE: _gate,
        Kind.KEEP_NORM: _keep_norm,
        Kind.REPLACE: _replace,
        Kind.JOINT: _joint,
        Kind.ROTATE: _rotate,
    }
)


def _scalars(work: _Work, rows: Tensor, j: int) -> tuple[Tensor, ...]:
    return tuple(work.columns[name][rows, j] for name in FLOAT32)


def _seen(work: _Work, rows: Tensor, j: int) -> tuple[Tensor, Tensor]:
    """Return which columns column j sees [R, K] and the weight of `h` behind them, rho [R].

    Columns that are still to come have no weights, so that their bits mean nothing.
    """
    places = torch.arange(work.on.shape[1], device=rows.device)
    seen = (work.columns["sees"][rows, j, None] >> places & 1).bool()
    return seen, 1 + torch.where(seen, work.d[rows], 0).sum(dim=1)


def _reads(work: _Work, rows: Tensor, j: int) -> Tensor:
    """Return what column j reads behind the columns that it sees, [R]; 0 where it reads nothing."""
    seen, rho = _seen(work, rows, j)
    a, b = work.columns["a"][rows, j], work.columns["b"][rows]
    gram = work.gram[a.clamp(min=0)[:, None], b.clamp(min=0)]  # [R, K]
    earlier = torch.where(seen & (b >= 0), gram * work.c[rows], 0).sum(dim=1)
    return torch.where(a >= 0, rho * work.dots[rows, a.clamp(min=0)] + earlier, 0)


def _stream(work: _Work, rows: Tensor, j: int) -> Tensor:
    """Return the stream that column j sees, [R, H] float64."""
    seen, rho = _seen(work, rows, j)
    c = torch.where(seen, work.c[rows], 0)
    added = _spread(c, work.columns["b"][rows], len(work.bank)).to(work.h.dtype) @ work.bank
    return rho[:, None] * work.h[rows] + added


def _has(work: _Work, rows: Tensor, j: int, mode: Mode) -> Tensor:
    return (work.columns["mode"][rows, j] & mode) != 0


def _weight(work: _Work, rows: Tensor, j: int) -> Tensor:
    """Return the weight that column j's gate gives it, [R]; 1 where it has none."""
    gate = work.columns["gate"][rows, j]
    here = work.g[rows, torch.where(gate < GATES, gate, 0).clamp(min=0)]
    there = work.gate[work.live[rows], (gate - GATES).clamp(min=0)].double()
    return torch.where(gate < 0, 1, torch.where(gate < GATES, here, there))


def _spread(c: Tensor, b: Tensor, rows: int) -> Tensor:
    """Return the weight of every bank row [T, V], from those of the columns."""
    weights = torch.zeros(len(c), rows, dtype=c.dtype, device=c.device)
    return weights.scatter_add_(1, b.clamp(min=0), torch.where(b >= 0, c, 0))


def _count(fired: Tensor, program: Tensor, seat: Tensor, counts: SiteCounts) -> None:
    """Count each row once for every program that has a column which fired there."""
    for index in range(len(counts.total)):
        rows = (fired & (program == index)).any(dim=1)
        counts.total[index] += rows.sum()
        seated = seat[rows & (seat >= 0)]
        counts.seats[:, index] += torch.bincount(seated, minlength=len(counts.seats))
