"""Directions of every layer, and how well each tells held-out positives from negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from interv.document.wording import layer_text
from interv.errors import IntervError
from interv.extract.methods import Array, direction_of
from interv.extract.split import Split

# A layer is worth trying that separates nearly as well as the best one.
GOOD = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class LayerResult:
    """The direction of one layer, and the held-out pairs along it.

    Projections are in units of the stream, on the direction's unit vector. `threshold` is the
    middle between the means of the pairs that made the direction.
    """

    layer: int
    direction: Array  # [H]
    threshold: float
    positive: Array  # [M] projections of held-out positives
    negative: Array  # [M] of held-out negatives
    next_cosine: float | None = None  # with the direction of the next layer here

    @property
    def norm(self) -> float:
        """Return the length of the direction."""
        return float(np.linalg.norm(self.direction))

    @property
    def accuracy(self) -> float | None:
        """Return the share of held-out texts on their side of the threshold, None without any."""
        if not self.positive.size:
            return None
        right = (self.positive > self.threshold).sum() + (self.negative < self.threshold).sum()
        return float(right) / (self.positive.size + self.negative.size)

    @property
    def separation(self) -> float | None:
        """Return Cohen's d: the distance of the means over the pooled standard deviation.

        None where no pairs are held out, or where they do not vary at all.
        """
        if self.positive.size < 2:
            return None
        pooled = np.sqrt((self.positive.var(ddof=1) + self.negative.var(ddof=1)) / 2)
        if pooled == 0:
            return None
        return float((self.positive.mean() - self.negative.mean()) / pooled)


@dataclass(frozen=True, slots=True, eq=False)
class Extraction:
    """The directions of all layers asked for, ascending."""

    results: tuple[LayerResult, ...]
    pairs: int  # that made the directions
    held: int  # pairs held out

    @property
    def best(self) -> LayerResult | None:
        """Return the layer of the highest accuracy, of those the one that separates most."""
        return max(self.results, key=_rank) if self.held else None

    @property
    def good(self) -> tuple[int, ...]:
        """Return the layers whose accuracy is the best one's, and that separate nearly as well."""
        if (best := self.best) is None:
            return ()
        wanted = GOOD * (best.separation or 0.0)
        return tuple(
            one.layer
            for one in self.results
            if one.accuracy == best.accuracy and (one.separation or 0.0) >= wanted
        )


def extract_directions(
    activations: npt.NDArray[np.floating],
    layers: Sequence[int],
    split: Split,
    method: str,
    *,
    unit: bool = False,
) -> Extraction:
    """Return the directions of activations [2, N, L, H], positives first, of these L layers.

    With `unit` each has length 1. Raises E286 where activations are not finite, or where those of
    the two sides are the same.
    """
    results, same, rough = [], [], []
    for place, layer in enumerate(layers):
        # One layer at a time: all of them together in float64 may be large.
        positive, negative = np.asarray(activations[:, :, place], np.float64)
        if not (np.isfinite(positive).all() and np.isfinite(negative).all()):
            rough.append(layer)
            continue
        result = _layer(layer, positive, negative, split, method)
        if result.norm == 0:
            same.append(layer)
        results.append(result)
    if rough:
        raise IntervError("E286", f"activations are NaN or infinite at layers {layer_text(rough)}")
    if same:
        raise _equal(same)
    if unit:
        results = [replace(one, direction=one.direction / one.norm) for one in results]
    return Extraction(_with_cosines(results), len(split.train), len(split.held))


def _layer(layer: int, positive: Array, negative: Array, split: Split, method: str) -> LayerResult:
    train, held = list(split.train), list(split.held)
    direction = direction_of(method, positive[train], negative[train])
    unit = direction / (np.linalg.norm(direction) or 1.0)
    along = (positive @ unit, negative @ unit)
    middle = float(along[0][train].mean() + along[1][train].mean()) / 2
    return LayerResult(layer, direction, middle, along[0][held], along[1][held])


def _with_cosines(results: Sequence[LayerResult]) -> tuple[LayerResult, ...]:
    cosines: list[float | None] = [
        float(one.direction @ after.direction) / (one.norm * after.norm)
        for one, after in pairwise(results)
    ]
    pairs = zip(results, [*cosines, None], strict=True)
    return tuple(replace(one, next_cosine=cosine) for one, cosine in pairs)


def _equal(layers: Sequence[int]) -> IntervError:
    return IntervError(
        "E286",
        f"positives and negatives are the same at layers {layer_text(layers)}",
        notes=("a token sees the texts before it from its first attention on",),
        helps=("leave these layers out (--layers), or take --position mean",),
    )


def _rank(result: LayerResult) -> tuple[float, float]:
    return (result.accuracy or 0.0, result.separation or 0.0)
