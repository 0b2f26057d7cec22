"""The directions between two sets of activations: difference of means, PCA, logistic probe.

All arithmetic is float64. Whatever the method, `scale 1` of the direction moves the mean of the
negatives to where the mean of the positives is, along the direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]

# The strength of the probe's penalty on standardised features: scikit-learn's default, C = 1.
RIDGE = 1.0
_MOST_STEPS = 200
_FLAT = 1e-12  # of a feature's size: below it, its spread is rounding


def difference_of_means(positive: Array, negative: Array) -> Array:
    """Return mean(x⁺) - mean(x⁻) of activations [N, H], as [H]."""
    found: Array = positive.mean(0) - negative.mean(0)
    return found


def principal_component(positive: Array, negative: Array) -> Array:
    """Return the first principal component of paired activations [N, H], of length 1, as [H].

    As repeng's `pca_center` (`repeng/extract.py`, `read_representations`): of both states of a
    pair the middle between them is taken away, so that they are ±(x⁺ - x⁻)/2 and their mean is
    zero already. That is the first right singular vector of the differences as they are.
    (repeng's `pca_diff` lets PCA centre the differences themselves, which takes away what all
    pairs have in common, and leaves only how they vary.)
    """
    found: Array = np.linalg.svd(positive - negative, full_matrices=False)[2][0]
    return found


def logistic_probe(positive: Array, negative: Array) -> Array:
    """Return the normal [H] of the plane that a logistic regression puts between [N, H] and [N, H].

    It minimises Σ log(1 + exp(-yᵢ(w·zᵢ + b))) + RIDGE/2·‖w‖² over standardised features z, the
    intercept without penalty, by Newton's method. A rotation of the features onto their singular
    vectors leaves that as it is, so that no more than 2N of the H weights have to be found. The
    normal is w over the features' spreads, which is the gradient in activations.
    """
    rows = np.concatenate([positive, negative])
    centre, spread = rows.mean(0), rows.std(0)
    spread[spread <= _FLAT * np.abs(rows).max(0)] = np.inf
    left, sizes, axes = np.linalg.svd((rows - centre) / spread, full_matrices=False)
    signs = np.repeat([1.0, -1.0], [len(positive), len(negative)])
    found: Array = (_logistic(left * sizes, signs) @ axes) / spread
    return found


Method: TypeAlias = Callable[[Array, Array], Array]
METHODS: Mapping[str, Method] = {
    "mean": difference_of_means,
    "pca": principal_component,
    "probe": logistic_probe,
}


def direction_of(method: str, positive: Array, negative: Array) -> Array:
    """Return the direction [H] of paired activations [N, H]; zero where they do not differ.

    It points to the positives, and is as long as the means are apart along it.
    """
    normal = METHODS[method](positive, negative)
    size = float(np.linalg.norm(normal))
    if size == 0 or not np.isfinite(size):
        return np.zeros_like(normal)
    unit = normal / size
    # Where the component points to the negatives this is negative, and turns it round.
    apart = float((positive.mean(0) - negative.mean(0)) @ unit)
    return unit * apart


def _logistic(features: Array, signs: Array) -> Array:
    """Return the weights [R] of features [M, R] for signs [M]; the intercept is left out."""
    design = np.column_stack([features, np.ones(len(features))])  # [M, R + 1]
    ridge = np.append(np.full(features.shape[1], RIDGE), 0.0)
    weights = np.zeros(design.shape[1])
    cost = _cost(design, signs, ridge, weights)
    for _ in range(_MOST_STEPS):
        odds = 1 / (1 + np.exp(np.clip(signs * (design @ weights), -500, 500)))  # of being wrong
        gradient = ridge * weights - design.T @ (signs * odds)
        curve = (design * (odds * (1 - odds))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(curve, gradient)
        # A whole step may go too far, where the sigmoid is flat.
        size = 1.0
        while (new := _cost(design, signs, ridge, weights - size * step)) > cost and size > 1e-10:
            size /= 2
        if new >= cost:
            break
        weights, cost = weights - size * step, new
    return weights[:-1]


def _cost(design: Array, signs: Array, ridge: Array, weights: Array) -> float:
    margins = signs * (design @ weights)
    return float(np.logaddexp(0, -margins).sum() + ridge @ weights**2 / 2)
