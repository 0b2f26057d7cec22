"""What a vector file holds before anyone decides what it means: named tensors of bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from interv.errors import IntervError
from interv.files import open_regular

# BF16 has no numpy type; it is read as 16 bits and widened.
NUMPY_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
}
# Those with more digits than float32.
WIDE_TYPES = ("F64", "I64", "I32")
# Before the names of facts among other metadata of a file.
FACTS = "interv."
LARGEST_SIZE = 1 << 48
POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """One tensor as the file stores it: `data` is its bytes, little-endian, row-major."""

    dtype: str
    shape: tuple[int, ...]
    data: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """All tensors of one file, by name; `layers` names those that are a layer's direction."""

    format: str
    tensors: Mapping[str, Raw]
    layers: Mapping[int, str] = field(default_factory=dict)
    hint: str = ""  # the model these directions are for, where the file says so
    notes: tuple[str, ...] = ()
    source: str = ""  # the tool that wrote it, where the file shows it
    facts: Mapping[str, str] = field(default_factory=dict)  # how it was made, by whoever made it
    # The layer of each tensor where the file gives every direction a layer of its own.
    own_layers: Mapping[str, int] = field(default_factory=dict)
    # What stands beside the tensors: numbers, texts, lists of layers.
    beside: Mapping[str, object] = field(default_factory=dict)
    of: str = ""  # the class of the object that was saved
    reading: tuple[str, ...] = ()  # what was taken for what, where the file leaves it open


def facts_of(metadata: Mapping[str, object]) -> dict[str, str]:
    """Return what a file's metadata says under our own prefix, in the order of the names."""
    return {
        key.removeprefix(FACTS): text
        for key, text in sorted(metadata.items())
        if key.startswith(FACTS) and isinstance(text, str)
    }


class BadFile(Exception):
    """Raised by a reader for bytes that are not a file of its format; the loader names the file."""


class NeedsTorch(Exception):
    """Raised where a file may be fine, and only torch can say: its reason."""


def decode(raw: Raw) -> npt.NDArray[np.float32]:
    """Return the tensor as float32, in its own shape.

    Values beyond float32 become infinite, which the loader then refuses. Raises E222 for an
    element type that is not a number we read.
    """
    if raw.dtype not in NUMPY_TYPES:
        raise IntervError(
            "E222",
            f"element type '{raw.dtype}' cannot be read as a direction",
            notes=(f"readable: {', '.join(NUMPY_TYPES)}",),
        )
    _check_shape(raw)
    flat = _flat(raw)
    if raw.dtype == "BF16":
        wide = (flat.astype(np.uint32) << np.uint32(16)).view(np.float32)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            wide = flat.astype(np.float32)
    return wide.reshape(raw.shape)


def _check_shape(raw: Raw) -> None:
    """Raise E222 for a shape that its bytes do not fill, or that no array can have."""
    count = math.prod(raw.shape) * np.dtype(NUMPY_TYPES[raw.dtype]).itemsize
    if count != len(raw.data) or any(size >= LARGEST_SIZE for size in raw.shape):
        shape, stored = list(raw.shape), len(raw.data)
        raise IntervError("E222", f"a tensor of shape {shape} is not stored in {stored} bytes")


def rounds(raw: Raw) -> bool:
    """Say whether float32 cannot hold every value of a tensor that can be decoded."""
    if raw.dtype not in WIDE_TYPES:
        return False
    flat = _flat(raw)
    with np.errstate(over="ignore", invalid="ignore"):
        back = flat.astype(np.float32).astype(np.float64)
    return not np.array_equal(back, flat.astype(np.float64), equal_nan=True)


def raw_of(values: npt.NDArray[Any]) -> Raw:
    """Return an array of real numbers as a tensor of a file, in float64."""
    # Some NaN warn when they are widened; they are refused where directions are checked.
    with np.errstate(invalid="ignore"):
        wide = np.asarray(values, "<f8")
    return Raw("F64", values.shape, np.frombuffer(wide.tobytes(), np.uint8))


@contextmanager
def named(path: Path, shown: str) -> Iterator[None]:
    """Name the file that is read here: E220 where it cannot be read, E222 for a BadFile."""
    try:
        yield
    except OSError as error:
        raise IntervError("E220", f"'{shown}' cannot be read: {error.strerror or error}") from error
    except BadFile as error:
        kind = path.suffix.removeprefix(".")
        raise IntervError(
            "E222", f"'{shown}' is not a valid {kind} file", notes=(str(error),), helps=_fetch(path)
        ) from error


def _fetch(path: Path) -> tuple[str, ...]:
    """Return the help for a damaged file that is only a pointer of Git LFS to the real one."""
    try:
        with open_regular(path) as file:
            pointer = file.read(len(POINTER)) == POINTER
    except OSError:
        return ()
    return ("it is a pointer of Git LFS: `git lfs pull` fetches the file",) if pointer else ()


def _flat(raw: Raw) -> npt.NDArray[Any]:
    return np.frombuffer(raw.data.tobytes(), dtype=NUMPY_TYPES[raw.dtype])
