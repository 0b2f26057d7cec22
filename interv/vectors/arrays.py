"""The arrays of one file of an adapter, as float32, whatever the format."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from interv.errors import IntervError
from interv.vectors import objects, pt_file, safetensors_file
from interv.vectors.pickle_values import Record
from interv.vectors.raw import BadFile, decode, named
from interv.vectors.updates import Array
from interv.vectors.words import list_text

# The suffixes that torch writes its archives under.
TORCH = (".pt", ".bin")
PICKLES = (".pkl", ".pickle")
# The attributes of a linear transport, weight first, under which EasySteer looks for it.
TRANSPORT = ("A_", "B_")


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """Named arrays of a file; `settings` is what LM-Steer saves beside them."""

    shown: str
    format: str
    by_name: Mapping[str, Array]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def pick(self, name: str, shape: Sequence[int | None], wanted: str) -> Array:
        """Return an array of this shape (None stands for any length).

        Raises E223 where there is none, E227 with `wanted` beside it for another shape.
        """
        if name not in self.by_name:
            raise IntervError(
                "E223",
                f"'{self.shown}' holds no tensor '{name}'",
                notes=(f"tensors there: {list_text(list(self.by_name))}",),
            )
        values = self.by_name[name]
        fits = len(values.shape) == len(shape) and all(
            want in (None, size) for want, size in zip(shape, values.shape, strict=True)
        )
        if not fits:
            raise IntervError(
                "E227",
                f"'{name}' in '{self.shown}' has shape {list(values.shape)}",
                notes=(f"wanted: {wanted}",),
            )
        return values


def read_arrays(
    path: Path, shown: str, allowed: Sequence[type] = (), light: bool = False
) -> Arrays:
    """Read all tensors of a safetensors file, of a torch archive or of a pickle.

    In an archive types of `allowed` may stand beside the tensors. Raises E220 for a file that
    cannot be read, E222 for one that is damaged or holds other objects. If `light`, torch is not
    loaded, and NeedsTorch is raised for what it may be able to read.
    """
    with named(path, shown):
        if path.suffix in TORCH:
            return _from_objects(path, shown, pt_file.load(path, allowed, light))
        if path.suffix in PICKLES:
            return _from_objects(path, shown, pt_file.load_pickle(path))
        return _from_safetensors(path, shown)


def _from_safetensors(path: Path, shown: str) -> Arrays:
    found = {}
    for name, raw in safetensors_file.read(path).tensors.items():
        try:
            found[name] = decode(raw)
        except IntervError as error:
            where = f"'{name}' in '{shown}'"
            raise IntervError(error.code, f"{where}: {error.message}", notes=error.notes) from error
    return Arrays(shown, "safetensors", found)


def _from_objects(path: Path, shown: str, held: object) -> Arrays:
    loaded, settings = _without_settings(held)
    if isinstance(loaded, Record):
        loaded = _transport(loaded)
    elif isinstance(loaded, Mapping) and loaded.get(TRANSPORT[1], ...) is None:
        loaded = {name: value for name, value in loaded.items() if name != TRANSPORT[1]}
    if not isinstance(loaded, Mapping):
        raise BadFile(f"it holds a {objects.kind(loaded)}, not a dict of tensors")
    found: dict[str, Array] = {}
    size, used = path.stat().st_size, 0
    for key, value in loaded.items():
        if not objects.is_array(value):
            raise BadFile(f"its entry '{key}' is a {objects.kind(value)}, not a tensor")
        if str(key) in found:
            raise BadFile(f"it holds '{key}' twice")
        values = objects.numbers(value, size, "an array of numbers")
        used += values.nbytes
        if used > objects.SHARED * size:
            raise BadFile(f"its tensors are more than {objects.SHARED} times larger than the file")
        # Values beyond float32 become infinite, which is refused where updates are checked.
        with np.errstate(over="ignore", invalid="ignore"):
            found[str(key)] = np.array(values, dtype=np.float32, order="C")
    return Arrays(shown, path.suffix.removeprefix("."), found, settings)


def _transport(record: Record) -> Mapping[str, object]:
    """Return the map among the attributes of a fitted transport, which has many others."""
    found = {name: record.state[name] for name in TRANSPORT if name in record.state}
    if TRANSPORT[0] not in found:
        raise BadFile(f"it holds an object of '{record.of}' without '{TRANSPORT[0]}'")
    return {name: value for name, value in found.items() if value is not None}


def _without_settings(loaded: object) -> tuple[object, Mapping[str, Any]]:
    """Take apart what LM-Steer saves: a list of its arguments, its tensors, and a step count."""
    if not isinstance(loaded, list | tuple) or len(loaded) < 2:
        return loaded, {}
    first = loaded[0].state if isinstance(loaded[0], Record) else loaded[0]
    settings = vars(first) if isinstance(first, Namespace) else first
    return loaded[1], settings if isinstance(settings, Mapping) else {}
