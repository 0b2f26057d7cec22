"""Adapters of the residual stream: a learned update for each layer or one for all, ready to use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from interv.document.spec import SiteName
from interv.document.wording import layer_text
from interv.errors import IntervError, raise_all
from interv.frozen import FrozenMap
from interv.vectors.words import EVERY, at_text

Array: TypeAlias = npt.NDArray[np.float32]
Exact: TypeAlias = npt.NDArray[np.float64]
Kind: TypeAlias = Literal["low_rank", "linear"]


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """`h' = h + scale·((h readᵀ + bias) write)`, all float64.

    LoReFT (Wu et al., 2024, arXiv:2404.03592) reads W - R and writes R; LM-Steer (Han et al.,
    2024, arXiv:2305.12798) reads P1ᵀ and writes P2ᵀ.
    """

    read: Exact  # [r, H]
    bias: Exact  # [r]
    write: Exact  # [r, H]


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """`h' = h + scale·(h weightᵀ + bias − h)`, all float64: at scale 1 the map itself."""

    weight: Exact  # [H, H]
    bias: Exact  # [H]


@dataclass(frozen=True, slots=True, eq=False)
class LowRankParts:
    """A low-rank update as its file has it.

    `rotated` says that `write` is still to be subtracted from `read`: LoReFT keeps W and R apart.
    """

    read: Array  # [r, H]
    bias: Array | None  # [r]
    write: Array  # [r, H]
    rotated: bool = False

    def exact(self) -> LowRank:
        """Return the update in float64."""
        read, write = self.read.astype(np.float64), self.write.astype(np.float64)
        bias = np.zeros(len(read)) if self.bias is None else self.bias.astype(np.float64)
        return LowRank(
            _closed(read - write if self.rotated else read), _closed(bias), _closed(write)
        )


@dataclass(frozen=True, slots=True, eq=False)
class LinearParts:
    """A linear map as its file has it."""

    weight: Array  # [H, H]
    bias: Array | None  # [H]

    def exact(self) -> Linear:
        """Return the map in float64."""
        weight = self.weight.astype(np.float64)
        bias = np.zeros(len(weight)) if self.bias is None else self.bias.astype(np.float64)
        return Linear(_closed(weight), _closed(bias))


Parts: TypeAlias = LowRankParts | LinearParts


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a reader found: parts of one kind, by layer (EVERY stands for all of them)."""

    format: str
    parts: Mapping[int, Parts]
    site: SiteName | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter as the compiler uses it: the same kind and rank at each of its layers.

    `site` is where its source says that it acts, None where it says nothing. `parts` has one
    entry, for EVERY layer, where `layers` is None.
    """

    name: str
    path: Path
    format: str
    kind: Kind
    width: int  # H
    rank: int | None  # r; None for a linear map
    parts: Mapping[int, Parts]
    site: SiteName | None = None
    digest: str = ""  # sha256 of kind, layers and values, whatever the file format
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[int, ...] | None:
        """Return the layers that have an update, ascending, or None where every layer has."""
        return None if EVERY in self.parts else tuple(self.parts)

    def has(self, layer: int) -> bool:
        """Say whether there is an update for this layer."""
        return EVERY in self.parts or layer in self.parts

    def at(self, layer: int) -> LowRank | Linear:
        """Return the update for this layer, in float64; raise E229 where there is none."""
        if not self.has(layer):
            raise IntervError(
                "E229",
                f"adapter '{self.name}' has no update for layer {layer}",
                notes=(f"layers of '{self.path.name}': {layer_text(self.parts)}",),
            )
        return self.parts[EVERY if EVERY in self.parts else layer].exact()


def make_adapter(name: str, path: Path, shown: str, found: Found) -> Adapter:
    """Check what a reader found and freeze it.

    Raises E225 for values that are not finite, E226 for an update that changes nothing, E228 and
    E235 where widths and ranks differ from layer to layer.
    """
    parts = {layer: found.parts[layer] for layer in sorted(found.parts)}
    _check_sizes(parts, shown)
    digest = _check_values(parts, shown)
    first = next(iter(parts.values()))
    low_rank = isinstance(first, LowRankParts)
    return Adapter(
        name=name,
        path=path,
        format=found.format,
        kind="low_rank" if low_rank else "linear",
        width=_width(first),
        rank=_rank(first) if low_rank else None,
        parts=FrozenMap(parts),
        site=found.site,
        digest=digest,
        notes=found.notes,
    )


def _check_sizes(parts: Mapping[int, Parts], shown: str) -> None:
    errors = []
    if notes := _different("width", {layer: _width(part) for layer, part in parts.items()}):
        errors.append(
            IntervError("E228", f"'{shown}' has updates of different widths", notes=notes)
        )
    if notes := _different("rank", {layer: _rank(part) for layer, part in parts.items()}):
        errors.append(IntervError("E235", f"'{shown}' has updates of different ranks", notes=notes))
    raise_all(errors)


def _different(word: str, sizes: Mapping[int, int]) -> tuple[str, ...]:
    by_size: dict[int, list[int]] = {}
    for layer, size in sizes.items():
        by_size.setdefault(size, []).append(layer)
    if len(by_size) < 2:
        return ()
    return tuple(f"{word} {size}{at_text(layers)}" for size, layers in sorted(by_size.items()))


def _check_values(parts: Mapping[int, Parts], shown: str) -> str:
    """Return the digest of all values; one layer after the other, for maps of H² are large."""
    rough, idle, sha = [], [], hashlib.sha256()
    for layer, part in parts.items():
        values = _values(part)
        if not all(bool(np.isfinite(array).all()) for array in values):
            rough.append(layer)
        elif _idle(part, values):
            idle.append(layer)
        sha.update(f"{type(part).__name__}:{'*' if layer == EVERY else layer};".encode())
        for array in values:
            sha.update(f"{list(array.shape)}{array.dtype};".encode())
            sha.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    errors = []
    if rough:
        errors.append(IntervError("E225", f"'{shown}' holds NaN or infinity{at_text(rough)}"))
    if idle:
        errors.append(IntervError("E226", f"'{shown}' holds an update of zero{at_text(idle)}"))
    raise_all(errors)
    return sha.hexdigest()


def _values(part: Parts) -> tuple[Array | Exact, ...]:
    """Return what an update does: W - R needs float64, a linear map is the float32 it was."""
    if isinstance(part, LowRankParts):
        exact = part.exact()
        return (exact.read, exact.bias, exact.write)
    bias = np.zeros(len(part.weight), np.float32) if part.bias is None else part.bias
    return (part.weight, bias)


def _idle(part: Parts, values: tuple[Array | Exact, ...]) -> bool:
    """Say whether a low-rank update adds nothing to any stream, or a linear map reads nothing."""
    if isinstance(part, LinearParts):
        return not values[0].any()
    read, bias, write = values
    return not write.any() or not (read.any() or bias.any())


def _width(part: Parts) -> int:
    return int((part.write if isinstance(part, LowRankParts) else part.weight).shape[1])


def _rank(part: Parts) -> int:
    return int(part.write.shape[0]) if isinstance(part, LowRankParts) else 0


def _closed(values: Exact) -> Exact:
    values.setflags(write=False)
    return values
