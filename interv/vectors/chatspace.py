"""Directions in what chatspace saves: bundles of named vectors, and steering specs.

A bundle is `{"vectors": {name: {"vector": [H], "layer": L}}, "experiments": [...]}`; a spec has
operations for each layer: add, cap or ablation, each with its vector. L is the 0-based block whose
output is edited. Formats: chatspace's `generation/compat.py` and `vllm_steer_model.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from interv.document.wording import layer_text
from interv.vectors.pickle_values import Array, Record
from interv.vectors.raw import BadFile, Contents, raw_of

MOST_LAYERS = 10**6
# The operations of a layer in chatspace's first specs, in the order in which they are applied.
FIELDS = {"add": "add", "projection_cap": "cap", "ablation": "ablation"}
CLASSES = {"AddSpec": "add", "ProjectionCapSpec": "cap", "AblationSpec": "ablation"}
# Each number by its names; the second ones are those of the first specs.
BOUNDS: Mapping[str, tuple[str, ...]] = {"min": ("min", "cap_below"), "max": ("max", "cap_above")}
SCALE: Mapping[str, tuple[str, ...]] = {"scale": ("scale",)}
UNIT = "chatspace makes each direction of a bundle length 1: `unit` does the same"
NOTES = {
    "add": "chatspace adds at layers {}: each direction is its vector times its scale",
    "cap": "chatspace caps at layers {}, by bounds that are not part of a direction",
    "ablation": "chatspace ablates at layers {}, by a scale that is not part of a direction",
}


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One direction of a file of chatspace, and what is done with it at its layer.

    `vector` is a tensor or an Array [H] as the file holds it. `settings` are the numbers beside
    it: `scale`, or the bounds `min` and `max`. A bundle's directions have no kind of their own.
    """

    name: str
    layer: int
    kind: str  # add, cap or ablation; "" in a bundle
    vector: object
    settings: Mapping[str, float | None]


def operations(loaded: object) -> tuple[Operation, ...] | None:
    """Return the directions of a bundle or a spec, in the file's order; None where it is neither.

    Raises BadFile for a bundle or a spec that is not as chatspace writes it.
    """
    fields = _fields(loaded)
    if fields is None:
        return None
    if {"vectors", "experiments"} <= set(fields):
        return tuple(_bundle(fields["vectors"]))
    if set(fields) == {"layers"} and isinstance(fields["layers"], Mapping):
        return tuple(_spec(fields["layers"]))
    return None


def contents(found: Sequence[Operation], arrays: Sequence[npt.NDArray[Any]]) -> Contents:
    """Return operations as directions, `arrays` [H] being their vectors.

    A spec of one operation a layer is a bank; of a bundle, and of a spec with more, a key chooses
    one, which then has its own layer alone.
    """
    tensors, own = {}, {}
    for one, array in zip(found, arrays, strict=True):
        # In float32, as chatspace does; what is too large becomes infinite and is refused.
        with np.errstate(over="ignore", invalid="ignore"):
            values = array.astype(np.float32)
            if one.kind == "add":
                values = values * np.float32(one.settings["scale"])
        tensors[one.name] = raw_of(values)
        own[one.name] = one.layer
    bank = bool(found) and all(one.kind and one.name == _name(one.layer) for one in found)
    layers = {own[name]: name for name in sorted(own, key=lambda name: own[name])} if bank else {}
    source = "chatspace bundle" if not any(one.kind for one in found) else "chatspace steering spec"
    return Contents(
        "pt", tensors, layers, notes=tuple(_notes(found)), source=source, own_layers=own
    )


def _notes(found: Sequence[Operation]) -> Iterator[str]:
    if any(not one.kind for one in found):
        yield UNIT
    for kind, text in NOTES.items():
        if layers := {one.layer for one in found if one.kind == kind}:
            yield text.format(layer_text(layers))


def _bundle(vectors: object) -> Iterator[Operation]:
    if not isinstance(vectors, Mapping):
        raise BadFile("its 'vectors' are not a dict")
    for name, entry in vectors.items():
        if not isinstance(entry, Mapping) or not {"vector", "layer"} <= set(entry):
            raise BadFile(f"its vector '{name}' has no 'vector' and 'layer'")
        yield Operation(str(name), _layer(entry["layer"]), "", entry["vector"], {})


def _spec(layers: Mapping[Any, Any]) -> Iterator[Operation]:
    for key, value in layers.items():
        layer, steps = _layer(key), list(_steps(value))
        for index, (kind, fields) in enumerate(steps):
            name = _name(layer) if len(steps) == 1 else f"{_name(layer)}.{index}"
            if "vector" not in fields:
                raise BadFile(f"its {kind} at layer {layer} has no vector")
            yield Operation(
                name, layer, kind, _vector(fields["vector"]), _settings(kind, layer, fields)
            )


def _steps(value: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the operations of one layer, of the three forms that specs had."""
    fields = _fields(value)
    if fields is None:
        raise BadFile("a layer of its spec is not a dict of operations")
    if "operations" not in fields:
        for name, kind in FIELDS.items():
            if (given := _fields(fields.get(name))) is not None:
                yield kind, given
        return
    if not isinstance(fields["operations"], list | tuple):
        raise BadFile("the operations of a layer of its spec are not a list")
    for step in fields["operations"]:
        given = _fields(step) or {}
        said = step.of.name if isinstance(step, Record) else given.get("type")
        kind = CLASSES.get(str(said), str(said))
        if kind not in NOTES:
            raise BadFile(f"its spec has the operation '{kind}'; known: {', '.join(NOTES)}")
        if kind == "add" and not isinstance(step, Record):
            given = {**given, "scale": 1.0}
        yield kind, given


def _settings(kind: str, layer: int, fields: Mapping[str, Any]) -> dict[str, float | None]:
    names = BOUNDS if kind == "cap" else SCALE
    found: dict[str, float | None] = {}
    for name, given in names.items():
        value = next((fields[one] for one in given if fields.get(one) is not None), None)
        if value is None and name == "scale":
            raise BadFile(f"its {kind} at layer {layer} has no scale")
        if value is not None and (not isinstance(value, int | float) or not math.isfinite(value)):
            raise BadFile(f"the {name} of its {kind} at layer {layer} is not a finite number")
        found[name] = None if value is None else float(value)
    return found


def _vector(value: object) -> object:
    """Return a vector, unpacked where the spec was made ready to be sent to a worker."""
    if not isinstance(value, Mapping):
        return value
    dtype, data = str(value.get("storage_dtype", value.get("dtype"))), value.get("data")
    if dtype not in ("float16", "float32", "float64") or not isinstance(data, bytes | bytearray):
        raise BadFile("a vector of its spec is not packed as numbers")
    return Array(np.frombuffer(data, np.dtype(dtype).newbyteorder("<")))


def _fields(value: object) -> Mapping[str, Any] | None:
    if isinstance(value, Record):
        return value.state
    return value if isinstance(value, Mapping) else None


def _layer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MOST_LAYERS:
        shown = value if isinstance(value, int | str) else type(value).__name__
        raise BadFile(f"'{shown}' is not a layer; layers are counted from 0")
    return value


def _name(layer: int) -> str:
    return f"layer.{layer}"
