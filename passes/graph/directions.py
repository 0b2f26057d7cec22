"""Directions as numbers: what a vector holds for a layer, and what is computed from it.

Everything here is float64 and the same to the last bit on any machine: products of float32
numbers are exact, sums are rounded once (`math.fsum`), the rest is elementwise. Only a full linear
map, of H² numbers, stays the float32 that it was.
`place` rounds to float32, once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from interv.vectors import Directions
from interv.vectors.updates import Adapter as LoadedAdapter, LinearParts, LowRank
from interv.vectors.words import EVERY

Row: TypeAlias = npt.NDArray[np.float64]
Weights: TypeAlias = npt.NDArray[np.float32]


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

    @property
    def path(self) -> Path:
        """Return the file it came from."""
        return self.directions.path

    def fits(self, layer: int, hidden_size: int) -> bool:
        """Say whether it has a direction for a layer of a model of this width."""
        here = self.layers is None or layer in self.layers
        return here and len(self.directions.at(layer)) == hidden_size

    def __str__(self) -> str:
        return self.name


class Rows(NamedTuple):
    """A low-rank adapter at a layer, float64: `h + scale·((h readᵀ + bias) write)`."""

    read: Tensor  # [r, H]
    bias: Tensor  # [r]
    write: Tensor  # [r, H]


class Affine(NamedTuple):
    """A full linear map at a layer, float64: `h + scale·(h weightᵀ + bias − h)`."""

    weight: Tensor  # [H, H]
    bias: Tensor  # [H]


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """A full linear map as it is kept: `h weightᵀ + bias`, in the float32 of its file."""

    label: str
    weight: Weights  # [H, H]
    bias: Weights  # [H]
    digest: str  # sha256 of both

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter of a document under its name there."""

    name: str
    loaded: LoadedAdapter

    @property
    def linear(self) -> bool:
        """Say whether it is a full linear map; otherwise it has rows."""
        return self.loaded.kind == "linear"

    def at(self, layer: int) -> Rows:
        """Return its rows for a layer."""
        found = self.loaded.at(layer)
        assert isinstance(found, LowRank)
        return Rows(
            *(torch.from_numpy(one.copy()) for one in (found.read, found.bias, found.write))
        )

    def map_at(self, layer: int) -> Map:
        """Return its linear map for a layer; layers of one map share its memory."""
        part = self.loaded.parts[layer if self.layers else EVERY]
        assert isinstance(part, LinearParts)
        weight = np.ascontiguousarray(part.weight, "<f4")
        bias = np.zeros(len(weight), "<f4") if part.bias is None else part.bias.astype("<f4")
        sha = hashlib.sha256(weight.data)
        sha.update(bias.data)
        label = f"{self.name}[{layer}]" if self.layers else self.name
        return Map(label, weight, bias, sha.hexdigest())

    @property
    def layers(self) -> tuple[int, ...] | None:
        """Return the layers it has rows for, None where one adapter serves all."""
        return self.loaded.layers

    @property
    def path(self) -> Path:
        """Return the file or folder it came from."""
        return self.loaded.path

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


def cosine_and_sine(degrees: float) -> tuple[float, float]:
    """Return both of an angle, exactly -1, 0 and 1 at right angles."""
    turns, rest = divmod(degrees, 90)
    cos, sin = math.cos(math.radians(rest)), math.sin(math.radians(rest))
    for _ in range(int(turns) % 4):
        cos, sin = -sin, cos
    return cos + 0.0, sin + 0.0


def across(u: Row, w: Row) -> tuple[Row, float]:
    """Return the part of `w` orthogonal to `u` at length 1, and its share of `w`; all float64.

    `u` and `w` `[H]` have length 1, so that the share is the sine of the angle between them. It is
    taken twice, since what cancels leaves rounding errors along `u`; where nothing is left it is 0.
    """
    part = w
    for _ in range(2):
        part = part - math.fsum((part * u).tolist()) * u
    share = math.sqrt(math.fsum((part * part).tolist()))
    return (unit_vector(part), share) if share > 0 else (part, 0.0)


def weighted_sum(scales: Sequence[float], rows: Sequence[Row]) -> Row:
    """Return `Σ scale·row`, float64 `[H]`, in the order given."""
    total = np.zeros_like(rows[0])
    for scale, row in zip(scales, rows, strict=True):
        total = total + scale * row
    return total
