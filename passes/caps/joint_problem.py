"""Several caps of the same tokens as one problem: the smallest change after which all hold.

    given   û₁·h = 1    û₂·h in [0, 2]    û₃·h in [−1, 1]
    solved  q₁·h = 1    then ŵ₂·h in [(0 − κ₂)/r₂, …] and ŵ₃·h in […], both orthogonal to q₁

Pins (bounds that leave one value) are made orthogonal by Gram and Schmidt, which turns their
values into constants. The other directions lose their part in the span of the pins, so that
pins and intervals are apart: the smallest change is the sum of the two smallest changes. Intervals
that are orthogonal to all others are caps as they are; the rest forms blocks that sweeps solve
(Hildreth, A quadratic programming procedure, 1957). Everything here is float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from interv.passes.caps.bounds import Bound, Note, Unsolvable, all_of, behind, dot, gram_of, slack
from interv.passes.caps.dependent_bounds import circle, forced, needed
from interv.passes.caps.halfspaces import DEPENDENT, MANY, ORTHOGONAL, connected, sweep_rate
from interv.passes.graph.cyclic_projections import SWEEPS
from interv.passes.graph.directions import unit_vector

# The factor by which sweeps at run time have to shrink an error: as far as float32 goes, in three
# quarters of them, which leaves the rest for finding out which bounds are reached.
SLOWEST = 2.0 ** (-22 / (0.75 * SWEEPS))
# Below this rest of a direction its bounds, divided by it, are too coarse in float32.
_TOO_CLOSE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """What to apply in this order, pins first; `blocks` are each solved by sweeps."""

    caps: tuple[Bound, ...]
    blocks: tuple[tuple[Bound, ...], ...]
    notes: tuple[Note, ...]


def solve(bounds: Sequence[Bound]) -> Solved:
    """Return caps and blocks that change a stream least so that all the bounds hold.

    Raises Unsolvable with a smallest set of statements that cannot all hold, or with those that
    `SWEEPS` sweeps in float32 cannot solve.
    """
    try:
        return _solve(bounds)
    except Unsolvable as found:
        if found.why != "infeasible":
            raise
    kept = list(bounds)
    for one in bounds:
        rest = [other for other in kept if other is not one]
        kept = rest if _fails(rest) else kept
    raise Unsolvable("infeasible", all_of(kept))


def as_they_are(solved: Solved, bounds: Sequence[Bound]) -> Solved:
    """Return what `solve` made of these bounds by their own directions, for sweeps, pins too.

    Where the pins `q` hold, `û·h = κ + r ŵ·h` for a bound of direction `û` that `ŵ` is left of;
    so the bounds that are left say the same of `û`. Raises Unsolvable with those that `SWEEPS`
    sweeps in float32 cannot solve.
    """
    left = (*solved.caps, *(one for block in solved.blocks for one in block))
    pins = [one for one in left if one.pinned]
    own = []
    for one in left:
        row = bounds[one.of[0]].row
        r = dot(row, one.row)
        kappa = math.fsum(dot(row, pin.row) * pin.low for pin in pins if pin is not one)
        low, high = sorted((kappa + r * one.low, kappa + r * one.high))
        own.append(Bound(row, low, low if one.pinned else high, one.of))
    return _grouped(own, [])


def _fails(bounds: Sequence[Bound]) -> bool:
    try:
        _solve(bounds)
    except Unsolvable as found:
        return found.why == "infeasible"
    return False


def _solve(bounds: Sequence[Bound]) -> Solved:
    notes: list[Note] = []
    pins: list[Bound] = []
    loose = _merged(_closed(bounds, notes), notes)
    while True:
        found = [one for one in loose if one.pinned]
        for one in found:
            pins += _reduced(one, pins, notes)
        loose = [rest for one in loose if not one.pinned for rest in _reduced(one, pins, notes)]
        loose = forced(_merged(loose, notes), notes)
        if not any(one.pinned for one in loose):
            break
    grouped = _grouped(needed(loose, notes), notes)
    return replace(grouped, caps=(*pins, *grouped.caps))


def _grouped(loose: Sequence[Bound], notes: list[Note]) -> Solved:
    """Take bounds that are orthogonal to all others as caps, and the rest as blocks."""
    groups = [tuple(loose[j] for j in group) for group in connected(gram_of(loose))]
    blocks = tuple(group for group in groups if len(group) > 1)
    for block in blocks:
        _refuse_slow(block)
        notes.append(Note("swept", all_of(block)))
    return Solved(
        tuple(group[0] for group in groups if len(group) == 1),
        blocks,
        tuple(dict.fromkeys(notes)),
    )


def _closed(bounds: Sequence[Bound], notes: list[Note]) -> list[Bound]:
    """Leave out what bounds nothing."""
    closed = [one for one in bounds if one.low > -math.inf or one.high < math.inf]
    notes += [Note("open", one.of) for one in bounds if one not in closed]
    return closed


def _merged(bounds: Sequence[Bound], notes: list[Note]) -> list[Bound]:
    """Let bounds of one direction become one; the first of them gives the direction."""
    kept: list[Bound] = []
    for one in bounds:
        for i, first in enumerate(kept):
            cosine = float(first.row @ one.row)
            if np.linalg.norm(one.row - math.copysign(1, cosine) * first.row) <= DEPENDENT:
                notes.append(Note("merged", one.of, first.of))
                kept[i] = _both(first, one, flipped=cosine < 0)
                break
        else:
            kept.append(one)
    return kept


def _both(first: Bound, one: Bound, *, flipped: bool) -> Bound:
    low, high = (-one.high, -one.low) if flipped else (one.low, one.high)
    low, high = max(first.low, low), min(first.high, high)
    of = all_of([first, one])
    off = tuple(sorted({*first.off, *one.off}))
    if low > high:
        if low - high > slack(low, high):
            raise Unsolvable("infeasible", (*of, *off))
        low = high = (low + high) / 2
    return replace(first, low=low, high=high, of=of, off=off)


def _reduced(one: Bound, pins: Sequence[Bound], notes: list[Note]) -> list[Bound]:
    """Take the pins' directions, which are orthonormal, from a bound's own.

    `û = Σ (û·qₖ) qₖ + r ŵ`, and `û·h = κ + r ŵ·h` where the pins hold. Nothing is left of a bound
    in their span, which holds always or never.
    """
    row, kappa, others = one.row, 0.0, set[int]()
    for pin in pins:
        part = dot(row, pin.row)
        row, kappa = row - part * pin.row, kappa + part * pin.low
        if abs(part) > ORTHOGONAL:
            others.update(pin.of, pin.off)
    if not others:
        return [one]
    r, off = math.sqrt(dot(row, row)), tuple(sorted(others))
    if r < DEPENDENT:
        room = slack(kappa, one.low, one.high)
        if not one.low - room <= kappa <= one.high + room:
            raise Unsolvable("infeasible", (*one.of, *one.off, *off))
        notes.append(Note("fixed", one.of, off))
        return []
    if r < _TOO_CLOSE:
        raise Unsolvable("close", (*one.of, *off), math.sqrt(1 - r * r))
    notes.append(Note("orthogonalised", one.of, off))
    # A second time: rounding leaves as much of the pins in the rest as r is small.
    for pin in pins:
        row = row - dot(row, pin.row) * pin.row
    every = tuple(sorted({*one.off, *off}))
    low, high = ((bound - kappa) / r for bound in (one.low, one.high))
    return [Bound(unit_vector(row), low, low if one.pinned else high, one.of, every)]


def _refuse_slow(block: Sequence[Bound]) -> None:
    """Refuse a block that sweeps do not solve, and name the two directions that are closest."""
    gram = gram_of(block)
    if sweep_rate(gram) <= SLOWEST:
        return
    cosines = np.abs(np.triu(gram, 1))
    i, j = divmod(int(cosines.argmax()), len(block))
    if cosines[i, j] ** 2 <= SLOWEST:
        if members := circle(block):
            raise Unsolvable("dependent", behind(members))
        if len(block) > MANY:
            raise Unsolvable("many", behind(block))
    raise Unsolvable("close", behind([block[i], block[j]]), float(cosines[i, j]))
