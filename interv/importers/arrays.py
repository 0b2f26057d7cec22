"""Arrays that stand in JSON: lists of numbers, packed bytes, tensors with a type and a shape."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from interv.errors import IntervError
from interv.importers.draft import unfit
from interv.importers.fields import Fields, shown

Array = npt.NDArray[np.float32]
# Element types as the sources name them, by the bytes of one; bfloat16 is cut float32.
TYPES: Mapping[str, str] = {
    "float64": "<f8",
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "<u2",
}
WIDEST = 1 << 20


def direction(value: object, where: str) -> Array:
    """Return a direction [H] given as a list of numbers, a tensor of one dimension or an array.

    Raises E263 for anything else.
    """
    if not isinstance(value, dict | np.ndarray):
        return numbers(value, where)
    found = tensor(Fields(value, where)) if isinstance(value, dict) else np.asarray(value)
    if found.ndim != 1:
        raise unfit(f"a direction of shape {list(found.shape)}", where, "wanted: [H]")
    with np.errstate(over="ignore", invalid="ignore"):
        return found.astype(np.float32)


def numbers(value: object, where: str) -> Array:
    """Return a list of numbers as float32 [H]; raise E263 for anything else."""
    if not isinstance(value, list) or not value or len(value) > WIDEST:
        raise unfit("a direction that is no list of numbers", where)
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in value):
        odd = next(
            one for one in value if isinstance(one, bool) or not isinstance(one, int | float)
        )
        raise unfit(f"the element {shown(odd)}", where, "a direction is a list of numbers")
    try:
        with np.errstate(over="ignore"):
            return np.asarray(value, np.float64).astype(np.float32)
    except OverflowError as error:
        raise unfit("an element beyond float64", where) from error


def tensor(fields: Fields) -> Array:
    """Return a tensor: `shape`, `data` as base64 or as numbers, and `dtype`, float32 without.

    Raises E211 for fields that are missing or unknown, E263 where they do not fit each other.
    """
    fields.only(("dtype", "shape", "data"))
    shape = fields.whole("shape", 1, WIDEST)
    if shape is None or not 1 <= len(shape) <= 3:
        raise fields.wrong("shape", "a list of 1 to 3 sizes", fields.need("shape"))
    kind = fields.text("dtype", "float32").removeprefix("torch.")
    data = fields.need("data")
    if isinstance(data, list):
        flat = numbers(data, fields.inside("data"))
    else:
        flat = packed(data, kind, fields.inside("data"))
    return shaped(flat, shape, fields.where)


def packed(data: object, kind: str, where: str) -> Array:
    """Return packed little-endian numbers, given in base64, as float32.

    Raises E211 for an unknown type, E263 for what is not base64 of whole numbers of that type.
    """
    if kind not in TYPES:
        raise IntervError(
            "E211",
            f"{shown(kind)} is not an element type",
            notes=(f"in {where}", f"types: {', '.join(TYPES)}"),
        )
    try:
        raw = base64.b64decode(data, validate=True) if isinstance(data, str) else b""
        flat = np.frombuffer(raw, dtype=TYPES[kind])
    except (binascii.Error, ValueError) as error:
        raise unfit(f"data that is not base64 of {kind}", where, str(error)) from error
    if not flat.size:
        raise unfit(f"data that is not base64 of {kind}", where)
    if kind == "bfloat16":
        return (flat.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(over="ignore"):
        return flat.astype(np.float32)


def shaped(flat: Array, shape: Sequence[int], where: str) -> Array:
    """Return numbers in a shape; raise E263 where there are more or fewer."""
    if math.prod(shape) != flat.size:
        raise unfit(f"data of {flat.size} numbers in shape {list(shape)}", where)
    return flat.reshape(shape)
