"""The rotation of an intervention, whether saved as itself or as what torch derives it from.

Some interventions of pyreft save `rotate_layer`, [H, r] with orthonormal columns. Others save what
`torch.nn.utils.parametrizations.orthogonal` keeps of it: `original` [H, r], whose part below the
diagonal holds Householder vectors, and `base` [H, H]. The rotation then is

    base · (H₁ H₂ … Hᵣ)[:, :r] · diag(original),   Hᵢ = I − 2 vᵢ vᵢᵀ / ‖vᵢ‖²,   vᵢ[i] = 1
"""

from __future__ import annotations

import numpy as np

from interv.errors import IntervError
from interv.vectors.arrays import Arrays
from interv.vectors.updates import Array, Exact

PLAIN = ("rotate_layer", "rotate_layer.weight")
ORIGINAL = "rotate_layer.parametrizations.weight.original"
BASE = "rotate_layer.parametrizations.weight.0.base"
NAMES = (*PLAIN, ORIGINAL, BASE)


def rotation(arrays: Arrays, width: int, rank: int) -> Array:
    """Return the rotation [H, r] of an intervention, float32.

    Raises E223 and E227 for tensors that are missing or of other shapes, E840 for a rotation of
    the whole stream, which torch derives in another way.
    """
    if ORIGINAL not in arrays.by_name:
        name = next((name for name in PLAIN if name in arrays.by_name), PLAIN[0])
        return arrays.pick(name, (width, rank), f"[H, rank], here [{width}, {rank}]")
    original = arrays.pick(ORIGINAL, (width, rank), f"[H, rank], here [{width}, {rank}]")
    base = arrays.pick(BASE, (width, width), f"[H, H], here [{width}, {width}]")
    if width <= rank:
        raise IntervError(
            "E840",
            f"'{arrays.shown}' rotates all {width} dimensions of the stream",
            notes=("its rotation is saved as a matrix exponential, which is not read",),
            helps=("save rotate_layer.weight as 'rotate_layer' in place of its parametrization",),
        )
    exact = base.astype(np.float64) @ householder(original.astype(np.float64))
    return np.ascontiguousarray(exact, np.float32)


def householder(original: Exact) -> Exact:
    """Return the product of the reflections below the diagonal, its columns signed by it."""
    width, rank = original.shape
    found: Exact = np.eye(width, rank)
    for i in reversed(range(rank)):
        vector = np.concatenate([np.zeros(i), [1.0], original[i + 1 :, i]])
        found -= np.outer(2 / (vector @ vector) * vector, vector @ found)
    found *= np.trunc(np.diagonal(original))
    return found
