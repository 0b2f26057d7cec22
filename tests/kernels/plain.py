"""What columns mean, said once more: one token's edits, each applied to what the last one left.

No Gram and no weights: every op changes a vector as its definition says. Shares nothing with the
forms of the update but the columns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from interv.codegen.bundle import Column
from interv.passes.graph.column import Kind, Mode
from interv.passes.placing.plan import GATES

Vector = npt.NDArray[np.float64]
SMALL = 1e-9


def run(
    h: Vector,
    bank: Vector,
    columns: Sequence[Column],
    on: Sequence[bool],
    gates: Sequence[float],
    index: int = 0,
) -> Vector:
    """Apply the columns that are on one after another to a stream `[H]`.

    `index` is how many generated tokens come before its token.
    """
    weights, j = [0.0] * len(columns), 0
    while j < len(columns):
        size = max(1, columns[j].block)
        if columns[j].kind == Kind.GATE and on[j]:
            own = weight(columns[j], weights, gates)
            weights[j] = own * opened(h, bank, columns[j], index)
        elif columns[j].kind == Kind.JOINT and on[j]:
            h = nearest(h, bank, columns[j : j + size])
        elif columns[j].kind == Kind.ROTATE and on[j]:
            h = turned(h, bank, columns[j : j + 2], weight(columns[j], weights, gates))
        elif on[j]:
            h = applied(h, bank, columns[j], weight(columns[j], weights, gates))
        j += size
    return h


def apart(
    h: Vector,
    bank: Vector,
    columns: Sequence[Column],
    on: Sequence[bool],
    gates: Sequence[float],
    index: int = 0,
) -> Vector:
    """Apply each column that is on to the original, and add up what they change."""
    weights: list[float] = []
    for one, here in zip(columns, on, strict=True):
        found = opened(h, bank, one, index) if here and one.kind == Kind.GATE else 0.0
        weights.append(found * weight(one, weights, gates) if found else 0.0)
    end = h
    for j, (one, here) in enumerate(zip(columns, on, strict=True)):
        if here and one.kind == Kind.ROTATE:
            share = weight(one, weights, gates)
            end = end + (turned(h, bank, columns[j : j + 2], share) - h if one.block else 0)
        elif here and one.kind != Kind.GATE:
            end = end + applied(h, bank, one, weight(one, weights, gates)) - h
    return end


def weight(one: Column, weights: Sequence[float], gates: Sequence[float]) -> float:
    """Return what a column's gate weighs it with."""
    if one.gate < 0:
        return 1.0
    return weights[one.gate] if one.gate < GATES else gates[one.gate - GATES]


def opened(h: Vector, bank: Vector, one: Column, index: int) -> float:
    """Return the weight of a gate that reads `h`, or of a decay."""
    if one.mode & Mode.DECAY:
        return 2.0 ** (one.alpha * index)
    x = float(h @ bank[one.a])
    if one.mode & Mode.COSINE:
        x = x / float(np.linalg.norm(h)) if h.any() else 0.0
    if one.mode & Mode.ABSOLUTE:
        x = abs(x)
    if one.mode & Mode.STEP:
        return 1.0 if one.low < x < one.high else 0.0
    return 1.0 / (1.0 + math.exp(-one.alpha * (x - one.low)))


def applied(h: Vector, bank: Vector, one: Column, weight: float) -> Vector:
    """Return the stream after one edit."""
    v = bank[one.b]
    if one.kind == Kind.REPLACE:
        return h + weight * one.strength * (one.alpha * v - h)
    p = float(h @ bank[one.a]) if one.a >= 0 else 0.0
    capped = min(max(p, one.low), one.high)
    alpha = one.alpha * float(np.linalg.norm(h)) if one.mode & Mode.SHARE else one.alpha
    moved = h + weight * (alpha + one.beta * p + one.strength * (capped - p)) * v
    if one.kind == Kind.KEEP_NORM:
        return moved * np.linalg.norm(h) / np.linalg.norm(moved)
    return moved


def turned(h: Vector, bank: Vector, pair: Sequence[Column], weight: float) -> Vector:
    """Return the stream after a rotation, of which `pair` are the two readings."""
    p, q = (float(h @ bank[one.a]) for one in pair)
    if p <= pair[0].low:
        return h
    r = math.hypot(p, q)
    change = (pair[0].alpha * r - p) * bank[pair[0].b] + (pair[1].alpha * r - q) * bank[pair[1].b]
    return h + weight * pair[0].strength * change


def nearest(h: Vector, bank: Vector, block: Sequence[Column]) -> Vector:
    """Return the stream nearest to `h` that is within all caps, by trying every set of bounds.

    The nearest one has some readings at a bound and is otherwise free; of all such streams that
    are within the caps it is the one that moves least.
    """
    rows = np.array([bank[one.a] for one in block])
    low, high = np.array([one.low for one in block]), np.array([one.high for one in block])
    best, least = h, np.inf
    for ends in itertools.product((None, low, high), repeat=len(block)):
        held = [i for i, bound in enumerate(ends) if bound is not None]
        bounds = np.array([bound[i] for i, bound in enumerate(ends) if bound is not None])
        if not np.isfinite(bounds).all():
            continue
        move = np.linalg.pinv(rows[held]) @ (bounds - rows[held] @ h) if held else 0.0 * h
        p = rows @ (h + move)
        if ((p >= low - SMALL) & (p <= high + SMALL)).all() and np.linalg.norm(move) < least:
            best, least = h + move, float(np.linalg.norm(move))
    assert np.isfinite(least)
    return best
