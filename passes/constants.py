"""Directions as numbers: what a vector holds for a layer, and what is computed from it.

Everything here is float64 and the same to the last bit on any machine: products of float32
numbers are exact, sums are rounded once (`math.fsum`), the rest is elementwise.
`place` rounds to float32, once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from interv.vectors import Directions

Row: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """A vector of a document under its name there."""

    name: str
    directions: Directions

    def at(self, layer: int) -> Row:
        """Return the direction for a layer, float64 `[H]`."""
        return np.asarray(self.directions.at(layer), dtype=np.float64)

    @property
    def layers(self) -> tuple[int, ...] | None:
        """Return the layers it has a direction for, None where one direction serves all."""
        return self.directions.layers

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A direction whose numbers are known, float64 `[H]`, and how it came to be."""

    label: str
    array: Row

    def __str__(self) -> str:
        return self.label


def unit_vector(row: Row) -> Row:
    """Return `row / ‖row‖`, float64 `[H]`.

    The norm neither overflows nor vanishes, since the elements come from float32; a direction
    of norm zero never comes here: the loader of vectors refuses it.
    """
    norm = math.sqrt(math.fsum((row * row).tolist()))
    assert norm > 0
    return row / norm


def weighted_sum(scales: Sequence[float], rows: Sequence[Row]) -> Row:
    """Return `Σ scale·row`, float64 `[H]`, in the order given."""
    total = np.zeros_like(rows[0])
    for scale, row in zip(scales, rows, strict=True):
        total = total + scale * row
    return total
