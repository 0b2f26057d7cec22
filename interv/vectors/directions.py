"""Directions of the residual stream, checked and ready to use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from interv.document.wording import layer_text
from interv.errors import IntervError
from interv.frozen import FrozenMap
from interv.vectors.origins import Origin

Vector: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """A vector file as the compiler uses it.

    Either `by_layer` maps 0-based blocks to directions [H], or `single` [H] serves every layer
    (then `by_layer` is empty). `rows` is set where layers were numbered by their position in a
    two-dimensional tensor: how many rows it had, to be compared with the model's blocks.
    """

    name: str
    path: Path
    format: str
    width: int  # H
    by_layer: Mapping[int, Vector]
    single: Vector | None = None
    rows: int | None = None
    hint: str = ""
    digest: str = ""  # sha256 of layers and values, whatever the file format
    notes: tuple[str, ...] = ()
    source: str = ""  # the tool that wrote the file, where it shows
    rounded: bool = False  # the file holds digits that float32 does not
    facts: Mapping[str, str] = field(default_factory=dict)  # how it was made, as the file says
    reading: tuple[str, ...] = ()  # what was taken for what, where names and shapes leave it open
    numbering: str = ""  # what file or document say the layers were numbered by
    measured: str = ""  # the site that the names in the file say
    origin: Origin | None = None  # the tool that most likely wrote it

    @property
    def layers(self) -> tuple[int, ...] | None:
        """Return the layers that have a direction, ascending, or None where every layer has."""
        return None if self.single is not None else tuple(self.by_layer)

    def has(self, layer: int) -> bool:
        """Say whether there is a direction for this layer."""
        return self.single is not None or layer in self.by_layer

    def at(self, layer: int) -> Vector:
        """Return the direction [H] for this layer; raise E229 where there is none."""
        if self.single is not None:
            return self.single
        if layer not in self.by_layer:
            raise IntervError(
                "E229",
                f"vector '{self.name}' has no direction for layer {layer}",
                notes=(f"layers of '{self.path.name}': {layer_text(self.by_layer)}",),
            )
        return self.by_layer[layer]


def make_directions(
    name: str,
    path: Path,
    format: str,
    found: Mapping[int, Vector] | Vector,
    *,
    unit: bool = False,
    rows: int | None = None,
    hint: str = "",
    notes: tuple[str, ...] = (),
    source: str = "",
    rounded: bool = False,
    facts: Mapping[str, str] | None = None,
    reading: tuple[str, ...] = (),
    numbering: str = "",
    measured: str = "",
    origin: Origin | None = None,
) -> Directions:
    """Freeze checked directions: normalise where asked, sort by layer, take the digest."""
    if isinstance(found, np.ndarray):
        single: Vector | None = _freeze(found, unit)
        by_layer: dict[int, Vector] = {}
        assert single is not None
        width = single.shape[0]
    else:
        single, by_layer = None, {i: _freeze(found[i], unit) for i in sorted(found)}
        width = next(iter(by_layer.values())).shape[0]
    return Directions(
        name=name,
        path=path,
        format=format,
        width=width,
        by_layer=FrozenMap(by_layer),
        single=single,
        rows=rows,
        hint=hint,
        digest=_digest(by_layer, single),
        notes=notes,
        source=source,
        rounded=rounded,
        facts=FrozenMap(facts or {}),
        reading=reading,
        numbering=numbering,
        measured=measured,
        origin=origin,
    )


def _freeze(vector: Vector, unit: bool) -> Vector:
    out = np.array(vector, dtype=np.float32)
    if unit:
        wide = vector.astype(np.float64)
        # Scaled first, so that the squares of tiny and huge directions stay in range.
        wide /= np.abs(wide).max()
        out = (wide / np.linalg.norm(wide)).astype(np.float32)
    out.setflags(write=False)
    return out


def _digest(by_layer: Mapping[int, Vector], single: Vector | None) -> str:
    sha = hashlib.sha256()
    items = [("*", single)] if single is not None else [(str(i), v) for i, v in by_layer.items()]
    for label, vector in items:
        assert vector is not None
        sha.update(f"{label}:{vector.shape[0]};".encode())
        sha.update(vector.astype("<f4").tobytes())
    return sha.hexdigest()
