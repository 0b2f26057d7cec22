"""Bounds on dots with known directions: can they all hold, how fast do sweeps solve them?

A set is `rows @ x <= limits` over unit rows, float64 `[m, H]`. Whether some `x` meets it is decided
by the theorem of the alternative of Farkas: exactly if there is none, weights `y >= 0` exist with
`rowsᵀ y = 0` and `limits·y < 0`. They are found as a non-negative least squares problem
(Lawson and Hanson, Solving Least Squares Problems, chapter 23).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# What is left of a direction after others are taken from it: below this it is one of their span.
# Vectors come from float32 files, whose numbers are off by 6e-8 of themselves.
DEPENDENT = 1e-6
# Cosines below this are rounding.
ORTHOGONAL = 1e-9
# The residual that rounding explains, of weights of size 1. Where some x meets the limits, scaled
# to at most 1, it is at least 1/‖x‖.
_NOTHING = 1e-11
# Up to so many rows every subset is looked at, 2¹² of them.
MANY = 12


def rank(rows: Array) -> int:
    """Return how many of the rows `[m, H]` are independent."""
    if len(rows) == 0:
        return 0
    return int((np.linalg.svd(rows, compute_uv=False) > DEPENDENT).sum())


def impossible(rows: Array, limits: Array) -> tuple[int, ...]:
    """Return indices of bounds that no x meets together, none where all bounds can hold.

    `rows` is `[m, H]`, `limits` `[m]` and finite; of the bounds returned none can be left out.
    """
    if rank(rows) == len(rows):
        return ()
    _, sizes, axes = np.linalg.svd(rows, full_matrices=False)
    inside = rows @ axes[sizes > DEPENDENT].T  # [m, r], the same dots in fewer dimensions
    largest = float(np.abs(limits).max())
    if largest == 0:
        return ()  # x = 0 meets them
    columns = np.vstack([inside.T, limits / largest])  # [r + 1, m]
    target = np.zeros(len(columns))
    target[-1] = -1.0
    y = _nonnegative(columns, target)
    if np.linalg.norm(columns @ y - target) > _NOTHING * max(1.0, float(y.sum())):
        return ()
    return tuple(int(i) for i in np.flatnonzero(y > _NOTHING * y.max()))


def _nonnegative(columns: Array, target: Array) -> Array:
    """Return the `y >= 0` `[m]` that brings `columns @ y` nearest to the target `[n]`."""
    y = np.zeros(columns.shape[1])
    held = np.zeros(columns.shape[1], dtype=bool)
    for _ in range(4 * columns.shape[1]):
        slope = np.where(held, -np.inf, columns.T @ (target - columns @ y))
        best = int(slope.argmax())
        if slope[best] <= _NOTHING:
            break
        held[best] = True
        y = _settled(columns, target, y, held)
    return y


def _settled(columns: Array, target: Array, y: Array, held: npt.NDArray[np.bool_]) -> Array:
    """Go from y towards the least squares of the columns held, dropping those that reach zero."""
    while True:
        trial = np.zeros_like(y)
        trial[held] = np.linalg.lstsq(columns[:, held], target, rcond=None)[0]
        falling = held & (trial <= 0)
        if not falling.any():
            return trial
        steps = y[falling] / np.maximum(y[falling] - trial[falling], np.finfo(np.float64).tiny)
        y = y + float(steps.min()) * (trial - y)
        held &= y > _NOTHING
        y[~held] = 0.0


def sweep_rate(gram: Array) -> float:
    """Return by which factor a sweep shrinks the error of c at worst, in the long run.

    `gram` is `[K, K]` with ones on its diagonal. Bounds that are not reached leave c at zero, so
    the sweeps are Gauss-Seidel on the Gram of those that are: the answer is the largest spectral
    radius over every subset, or a bound on it where there are too many. Returns 1 for dependent
    directions.
    """
    smallest = float(np.linalg.eigvalsh(gram)[0])
    if smallest <= DEPENDENT**2:
        return 1.0
    if len(gram) > MANY:
        # ‖I − M⁻¹G‖² = 1 − 1/λmax(G⁻¹MMᵀ) in the norm of G, with M its lower triangle (the diagonal
        # is one); a subset has neither a larger ‖M‖ nor a smaller eigenvalue.
        widest = float(np.linalg.norm(np.tril(gram), 2))
        return math.sqrt(max(0.0, 1 - smallest / widest**2))
    return max(float(np.abs(np.linalg.eigvals(one)).max()) for one in _sweeps(gram))


def _sweeps(gram: Array) -> Iterator[Array]:
    """Yield the matrices `[n, k, k]` of a sweep over every subset of k columns."""
    for size in range(1, len(gram) + 1):
        some = np.array(list(combinations(range(len(gram)), size)))
        part = gram[some[:, :, None], some[:, None, :]]
        yield np.eye(size) - np.linalg.solve(np.tril(part), part)


def connected(gram: Array) -> list[tuple[int, ...]]:
    """Return the columns of a Gram `[K, K]` in groups that are orthogonal to each other."""
    groups: list[list[int]] = []
    for j, cosines in enumerate(np.abs(gram)):
        near = [group for group in groups if cosines[group].max() >= ORTHOGONAL]
        groups = [group for group in groups if group not in near]
        groups.append(sorted([j, *(i for group in near for i in group)]))
    return [tuple(group) for group in sorted(groups)]
