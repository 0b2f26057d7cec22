"""The canonical update: any sequence of edits of one site, in one read and one write.

With `p = A h` and the Gram of the directions, what a column would have read after the earlier ones
follows from scalars: the stream is `(1 + Σ d) h + Σ c b` at any point, so a column that reads
`a·y` reads `(1 + Σ d)·p + Σ (a·b) c` over the columns that it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interv.passes.graph.column import NOTHING_LEFT, Form, Kind, Mode
from interv.passes.graph.cyclic_projections import swept
from interv.passes.graph.opening import Opening


def update(
    h: Tensor, directions: Sequence[Tensor], masks: Sequence[Tensor], columns: Sequence[Form]
) -> Tensor:
    """Return the stream `[T, H]` after the columns of one site.

    `directions` are V rows `[H]`; `masks` are the weights `[T]` of the columns, one each: bools,
    or what gates of other sites gave. Rows that no column changes keep their bits.
    """
    wide, mapped = _mapped(h.to(torch.promote_types(h.dtype, torch.float32)), masks, columns)
    state = _run(wide, directions, masks, columns)
    changed = mapped | ((state.c != 0) | (state.d != 0)).any(dim=1)
    out = wide + state.d.sum(dim=1, keepdim=True) * wide + state.c @ state.b
    return torch.where(changed[:, None], out.to(h.dtype), h)


def probe(
    h: Tensor,
    directions: Sequence[Tensor],
    masks: Sequence[Tensor],
    columns: Sequence[Form],
    column: int,
) -> Tensor:
    """Return the weights `[T]` that the GATE column of that number gives in such an update."""
    wide, _ = _mapped(h.to(torch.promote_types(h.dtype, torch.float32)), masks, columns)
    return _run(wide, directions, masks, columns).g[:, column]


def _mapped(
    wide: Tensor, masks: Sequence[Tensor], columns: Sequence[Form]
) -> tuple[Tensor, Tensor]:
    """Return the stream that the other columns read `[T, H]`, and which rows maps changed `[T]`."""
    changed = torch.zeros(len(wide), dtype=torch.bool)
    for form, mask in zip(columns, masks, strict=True):
        if form.map is not None:
            weight, bias = (
                torch.from_numpy(one).to(wide.dtype) for one in (form.map.weight, form.map.bias)
            )
            share = form.alpha * mask.to(wide.dtype)
            # A map has no gate of its own site, but it may decay.
            share = share if form.gate < 0 else share * masks[form.gate]
            on = share != 0
            moved = wide + share[:, None] * (wide @ weight.T + bias - wide)
            wide, changed = torch.where(on[:, None], moved, wide), changed | on
    return wide, changed


@dataclass(slots=True, eq=False)
class _State:
    """What is known while the columns of an update are gone through."""

    h: Tensor  # [T, H]
    a: Tensor  # [K, H], zero where a column reads nothing
    b: Tensor  # [K, H], zero where a column adds nothing
    p: Tensor  # [T, K]
    gram: Tensor  # [K, K], a·b
    c: Tensor  # [T, K], how much of each b the stream has gained
    d: Tensor  # [T, K], how much of h itself
    g: Tensor  # [T, K], weights of gates

    def reads(self, j: int, seen: Sequence[int]) -> Tensor:
        """Return what column j reads `[T]`."""
        return self.share(seen) * self.p[:, j] + self.c[:, seen] @ self.gram[j, seen]

    def adds(self, j: int, form: Form, seen: Sequence[int]) -> Tensor:
        """Return how much of its direction column j adds without a gate `[T]`."""
        length = self.stream(seen).norm(dim=1) if form.mode & Mode.SHARE else 1.0
        return phi(form, self.reads(j, seen), length)

    def share(self, seen: Sequence[int]) -> Tensor:
        """Return how much of h is left in the stream that a column reads `[T]`."""
        return 1 + self.d[:, seen].sum(dim=1)

    def stream(self, seen: Sequence[int]) -> Tensor:
        """Return that stream itself `[T, H]`."""
        return self.share(seen)[:, None] * self.h + self.c[:, seen] @ self.b[seen]


def _run(
    wide: Tensor, directions: Sequence[Tensor], masks: Sequence[Tensor], columns: Sequence[Form]
) -> _State:
    rows = [row.to(wide.dtype) for row in directions]
    bank = torch.stack([*rows, wide.new_zeros(wide.shape[1])])  # [V + 1, H]; row -1 is zero
    a, b = bank[[one.a for one in columns]], bank[[one.b for one in columns]]
    nothing = wide.new_zeros(len(wide), len(columns))
    state = _State(wide, a, b, wide @ a.T, a @ b.T, nothing, nothing.clone(), nothing.clone())
    for j, form in enumerate(columns):
        weight = masks[j].to(wide.dtype)
        weight = weight if form.gate < 0 else weight * state.g[:, form.gate]
        seen = [i for i in range(len(columns)) if form.sees >> i & 1]
        _column(state, j, columns, weight, seen)
        if form.block and form.kind == Kind.JOINT:
            _solve(state, j, columns, masks)
    return state


def _column(
    state: _State, j: int, columns: Sequence[Form], weight: Tensor, seen: list[int]
) -> None:
    form = columns[j]
    match form.kind:
        case Kind.ADD:
            state.c[:, j] = weight * state.adds(j, form, seen)
        case Kind.GATE:
            length = state.stream(seen).norm(dim=1) if form.mode & Mode.COSINE else None
            opened = opening_of(form).weight(state.reads(j, seen), length)
            opened = weight if form.mode & Mode.DECAY else weight * opened
            state.g[:, j] = torch.where(weight != 0, opened, 0.0)
        case Kind.KEEP_NORM:
            _keep_norm(state, j, weight * state.adds(j, form, seen), seen)
        case Kind.REPLACE:
            w = weight * form.strength
            state.d[:, j] = -w * state.share(seen)
            state.c[:, seen] *= (1 - w)[:, None]
            state.c[:, j] = w * form.alpha
        case Kind.ROTATE if form.block:
            _rotate(state, j, columns, weight, seen)


def _keep_norm(state: _State, j: int, scale: Tensor, seen: list[int]) -> None:
    """Add, then scale everything so that the norm is that of what was read."""
    before = state.stream(seen)
    after = before + scale[:, None] * state.b[j]
    norm, kept = after.norm(dim=1), before.norm(dim=1)
    ratio = torch.where((norm > NOTHING_LEFT * kept) & (scale != 0), kept / norm, 1.0)
    state.d[:, j] = (ratio - 1) * state.share(seen)
    state.c[:, seen] *= ratio[:, None]
    state.c[:, j] = ratio * scale


def _rotate(
    state: _State, j: int, columns: Sequence[Form], weight: Tensor, seen: list[int]
) -> None:
    """Turn what the columns j and j + 1 read to their angle, where the first reads enough."""
    readings = [state.reads(i, seen) for i in (j, j + 1)]
    length = torch.sqrt(readings[0] ** 2 + readings[1] ** 2)
    weight = torch.where(readings[0] > columns[j].low, weight * columns[j].strength, 0.0)
    for i, p in enumerate(readings, j):
        state.c[:, i] = weight * (columns[i].alpha * length - p)


def _solve(state: _State, first: int, columns: Sequence[Form], masks: Sequence[Tensor]) -> None:
    """Let all caps of a block hold with the smallest change; each sees the others."""
    block = range(first, first + columns[first].block)
    forms = [columns[j] for j in block]
    seen = [[i for i in range(len(columns)) if one.sees >> i & 1] for one in forms]
    p = torch.stack([state.reads(j, at) for j, at in zip(block, seen, strict=True)], dim=1)
    others = torch.tensor([[one.sees >> i & 1 for i in block] for one in forms])
    gram = state.gram[first : block.stop, first : block.stop] * others
    on = torch.stack([masks[j] != 0 for j in block], dim=1)
    c = swept(p, gram, [one.low for one in forms], [one.high for one in forms], on)
    state.c[:, first : block.stop] = c * c.new_tensor([one.strength for one in forms])


def phi(column: Form, p: Tensor, length: Tensor | float = 1.0) -> Tensor:
    """Return the coefficient of an ADD column that reads `p` `[T]` of a stream of that length."""
    moved = column.beta * p + column.strength * (p.clamp(column.low, column.high) - p)
    return column.alpha * length + moved


def opening_of(form: Form) -> Opening:
    """Return how a GATE column opens."""
    return Opening(form.alpha, form.low, form.high, form.mode)
