"""Read `.npy` and `.npz`: arrays of numbers, never a pickle that numpy may hold in them.

Format: the documentation of `numpy.lib.format`. The numbers of a stored entry are looked at where
they stand; a compressed entry may be so many times larger than the file, and no more.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from interv.files import MIB, check_regular, open_regular
from interv.vectors.pt_file import UNREADABLE
from interv.vectors.raw import NUMPY_TYPES, BadFile, Contents, Raw, raw_of

MOST_BYTES = 4096 * MIB
# Numbers that are drawn pack to a tenth less; more than this are nothing but zeros.
MOST_UNPACKED = 64
MOST_ENTRIES = 1 << 16
FORMAT: Any = np.lib.format
DTYPES = {np.dtype(code): name for name, code in NUMPY_TYPES.items() if name != "BF16"}


def read_npy(path: Path) -> Contents:
    """Return the one array of a `.npy` file, named ""; raise BadFile for what is no numbers."""
    check_regular(path, MOST_BYTES)
    with open_regular(path, MOST_BYTES) as file:
        shape, fortran, dtype = _header(file, path.name)
        start = file.tell()
    if start == path.stat().st_size:
        data = np.empty(0, np.uint8)
    else:
        data = np.memmap(path, np.uint8, "r", offset=start)
    return Contents("npy", {"": _raw(data, shape, fortran, dtype)})


def read_npz(path: Path) -> Contents:
    """Return the arrays of a `.npz` file by their names; texts and flags stand beside them.

    Raises BadFile for damaged archives, arrays of objects, and archives that unpack to too much.
    """
    size = check_regular(path, MOST_BYTES)
    tensors: dict[str, Raw] = {}
    beside: dict[str, object] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check(entries, size)
            for entry in entries:
                _take(archive, entry, tensors, beside)
    except UNREADABLE as error:
        raise BadFile(str(error) or "it is not an archive of numpy") from error
    return Contents("npz", tensors, beside=beside)


def _check(entries: list[zipfile.ZipInfo], size: int) -> None:
    if len(entries) > MOST_ENTRIES:
        raise BadFile(f"it holds more than {MOST_ENTRIES} arrays")
    if sum(entry.file_size for entry in entries) > MOST_UNPACKED * size:
        raise BadFile(f"it unpacks to more than {MOST_UNPACKED} times its own size")


def _take(
    archive: zipfile.ZipFile,
    entry: zipfile.ZipInfo,
    tensors: dict[str, Raw],
    beside: dict[str, object],
) -> None:
    name = entry.filename.removesuffix(".npy")
    if name == entry.filename:
        raise BadFile(f"it holds '{name}', which is no array of numpy")
    if name in tensors or name in beside:
        raise BadFile(f"it holds '{name}' twice")
    with archive.open(entry) as file:
        shape, fortran, dtype = _header(file, name)
        # What a damaged entry says of its size is no more than what there is.
        data = np.frombuffer(file.read(entry.file_size), np.uint8)
    if dtype.kind in "US" and not shape:
        beside[name] = str(np.frombuffer(data.tobytes(), dtype)[0]) if len(data) else ""
    else:
        tensors[name] = _raw(data, shape, fortran, dtype)


def _header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read what stands before the numbers of an array: shape, order and element type."""
    try:
        version = FORMAT.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise BadFile(f"it is of version {version[0]}.{version[1]} of numpy's format")
        # Of a header of more than 10,000 characters numpy reads nothing.
        first = version == (1, 0)
        read = FORMAT.read_array_header_1_0 if first else FORMAT.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, EOFError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise BadFile(f"'{name}': {str(error).splitlines()[0][:200]}") from error
    if dtype.hasobject:
        raise BadFile(f"'{name}' is an array of objects, which is a pickle; none is ever read")
    if dtype.kind not in "fiubUS":
        raise BadFile(f"'{name}' is an array of type '{dtype}', not of real numbers")
    return shape, fortran, dtype


def _raw(
    data: npt.NDArray[np.uint8], shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]
) -> Raw:
    if dtype.kind in "US":
        raise BadFile("it holds an array of texts, not of numbers")
    count = math.prod(shape)
    if min(shape, default=1) < 0 or count * dtype.itemsize != len(data):
        raise BadFile(f"an array of shape {list(shape)} is not stored in {len(data)} bytes")
    plain = DTYPES.get(dtype)
    if plain is not None and not (fortran and len(shape) > 1):
        return Raw(plain, shape, data)
    flat = np.frombuffer(data, dtype)
    ordered = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    return raw_of(np.ascontiguousarray(ordered))
