"""Bounds whose directions are dependent: which cannot all hold, which follow from the others.

Independent directions can be brought to any values. Dependent ones cannot, and sweeps over them
may creep, each by as little as their bounds disagree. So they have to become independent: bounds
that the others hold anyway go, and those that can hold in one way only become pins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from interv.passes.caps.bounds import Bound, Note, Unsolvable, all_of, behind, rows_of, slack
from interv.passes.caps.halfspaces import Array, impossible, rank


@dataclass(frozen=True, slots=True, eq=False)
class _Sides:
    """The finite bounds of a set as `rows @ h <= limits`; `which` names bound and side."""

    rows: Array
    limits: Array
    which: tuple[tuple[int, bool], ...]


def _sides(bounds: Sequence[Bound]) -> _Sides:
    found = [
        (sign * one.row, sign * limit, (j, sign > 0))
        for j, one in enumerate(bounds)
        for sign, limit in ((-1.0, one.low), (1.0, one.high))
        if math.isfinite(limit)
    ]
    rows, limits, which = zip(*found, strict=True)
    return _Sides(np.stack(rows), np.array(limits), which)


def forced(bounds: list[Bound], notes: list[Note]) -> list[Bound]:
    """Refuse dependent bounds that cannot all hold, and pin those that can in one way only."""
    if rank(rows_of(bounds)) == len(bounds):
        return bounds
    bounds, sides = list(bounds), _sides(bounds)
    room = slack(*sides.limits)
    if wrong := impossible(sides.rows, sides.limits + room):
        raise Unsolvable("infeasible", behind([bounds[sides.which[i][0]] for i in wrong]))
    tight = [sides.which[i] for i in impossible(sides.rows, sides.limits - room)]
    for j, upper in tight:
        value = bounds[j].high if upper else bounds[j].low
        bounds[j] = replace(bounds[j], low=value, high=value)
        others = all_of([bounds[i] for i, _ in tight if i != j])
        notes.append(Note("pinned", bounds[j].of, others))
    return bounds


def needed(bounds: list[Bound], notes: list[Note]) -> list[Bound]:
    """Leave out, among dependent bounds, those that hold wherever the others do."""
    for one in reversed(bounds):
        if rank(rows_of(bounds)) == len(bounds):
            break
        others = [other for other in bounds if other is not one]
        open_low, open_high = (_implied(others, one, upper=upper) for upper in (False, True))
        left = replace(
            one,
            low=-math.inf if open_low else one.low,
            high=math.inf if open_high else one.high,
        )
        if math.isinf(left.low) and math.isinf(left.high):
            notes.append(Note("implied", one.of, all_of(others)))
            bounds = others
        else:
            bounds = [left if other is one else other for other in bounds]
    return bounds


def circle(bounds: Sequence[Bound]) -> list[Bound]:
    """Return dependent bounds of which any can be left out for the rest to be independent."""
    if rank(rows_of(bounds)) == len(bounds):
        return []
    kept = list(bounds)
    for one in bounds:
        rest = [other for other in kept if other is not one]
        kept = rest if rank(rows_of(rest)) < len(rest) else kept
    return kept


def _implied(others: Sequence[Bound], one: Bound, *, upper: bool) -> bool:
    """Say whether the others keep `one` within a bound: nothing beyond it meets them."""
    limit = one.high if upper else one.low
    if math.isinf(limit):
        return True
    beyond = (limit, math.inf) if upper else (-math.inf, limit)
    outside = replace(one, low=beyond[0], high=beyond[1])
    sides = _sides([*others, outside])
    room = np.zeros(len(sides.limits))
    room[-1] = slack(*sides.limits)
    return bool(impossible(sides.rows, sides.limits - room))
