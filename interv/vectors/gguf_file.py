"""Read and write GGUF control vectors: `direction.N` edits the output of the 0-based block N.

The reader is our own: the `gguf` package's follows the counts of a hostile header without end.
Format: the GGUF v3 specification; names as repeng and llama.cpp write and read them.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from interv.files import check_regular
from interv.vectors.raw import FACTS, BadFile, Contents, Raw, facts_of

PREFIX = "direction."
LAYER = re.compile(r"direction\.(0|[1-9][0-9]{0,5})")
ARCHITECTURE = "controlvector"

# ggml's numbers of the element types that a direction can have.
TYPES = {0: "F32", 1: "F16", 28: "F64", 30: "BF16"}
ITEM_BYTES = {"F32": 4, "F16": 2, "F64": 8, "BF16": 2}

# GGUF's numbers of metadata value types, as struct codes; 8 is a string, 9 an array.
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING, ARRAY, INT32 = 8, 9, 5


@dataclass(slots=True)
class _Cursor:
    """A position in the header; every read is checked against the end of the file."""

    data: npt.NDArray[np.uint8]
    at: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise BadFile(f"it ends at byte {len(self.data)}, inside its header")
        self.at += count
        return self.data[self.at - count : self.at].tobytes()

    def number(self, code: str) -> int:
        return int(struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0])

    def text(self) -> str:
        try:
            return self.take(self.number("Q")).decode()
        except UnicodeDecodeError as error:
            raise BadFile("a name in its header is not UTF-8") from error


def read(path: Path) -> Contents:
    """Return the tensors of a GGUF file without loading them.

    Raises BadFile where a count, an offset or a size in the header does not fit the file.
    """
    if check_regular(path) == 0:
        raise BadFile("it is empty")
    data = np.memmap(path, dtype=np.uint8, mode="r")
    cursor = _Cursor(data)
    if cursor.take(min(4, len(data))) != b"GGUF":
        raise BadFile("it does not start with 'GGUF'")
    if (version := cursor.number("I")) not in (2, 3):
        raise BadFile(f"it is of GGUF version {version}; 2 and 3 can be read")
    tensor_count, field_count = cursor.number("Q"), cursor.number("Q")
    fields = _fields(cursor, field_count)
    tensors = _tensors(cursor, tensor_count, fields)
    found = {_layer(name): name for name in tensors if name.startswith(PREFIX)}
    hint = str(fields.get(f"{ARCHITECTURE}.model_hint", ""))
    notes = _notes(cursor, fields, tensors, found)
    source = _source(cursor, fields)
    layers, facts = dict(sorted(found.items())), facts_of(fields)
    return Contents("gguf", tensors, layers, hint, notes, source, facts)


def write(
    path: Path,
    directions: Mapping[int, npt.NDArray[np.float32]],
    hint: str,
    facts: Mapping[str, str],
) -> None:
    """Write `direction.N` tensors, F32 [H], as llama.cpp and repeng read them; N >= 1.

    `facts` are texts under names of our own, which other readers do not look at.
    """
    import gguf

    assert 0 not in directions
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    writer.add_string(f"{ARCHITECTURE}.model_hint", hint)
    writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(directions))
    for name in sorted(facts):
        writer.add_string(FACTS + name, facts[name])
    for layer in sorted(directions):
        writer.add_tensor(f"direction.{layer}", np.array(directions[layer], dtype=np.float32))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _fields(cursor: _Cursor, count: int) -> dict[str, object]:
    fields: dict[str, object] = {}
    for _ in range(count):
        key = cursor.text()
        kind = cursor.number("I")
        if key in fields:
            raise BadFile(f"its header holds '{key}' twice")
        fields[key], cursor.kinds[key] = _value(cursor, kind, depth=0), kind
    return fields


def _value(cursor: _Cursor, kind: int, depth: int) -> object:
    if kind in SCALARS:
        code = SCALARS[kind]
        return struct.unpack(f"<{code}", cursor.take(struct.calcsize(code)))[0]
    if kind == STRING:
        return cursor.text()
    if kind != ARRAY or depth > 3:
        raise BadFile(f"its header holds a value of unknown type {kind}")
    inner, count = cursor.number("I"), cursor.number("Q")
    if inner in SCALARS:
        cursor.take(count * struct.calcsize(SCALARS[inner]))
        return None
    # Every string and array takes at least its own length field, so this ends with the file.
    for _ in range(count):
        _value(cursor, inner, depth + 1)
    return None


def _tensors(cursor: _Cursor, count: int, fields: Mapping[str, object]) -> dict[str, Raw]:
    places: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for _ in range(count):
        name, dims = cursor.text(), cursor.number("I")
        if dims > 4:
            raise BadFile(f"its tensor '{name}' has {dims} dimensions; GGUF has up to 4")
        # GGUF lists the fastest dimension first.
        shape = tuple(reversed([cursor.number("Q") for _ in range(dims)]))
        kind, offset = cursor.number("I"), cursor.number("Q")
        if name in places:
            raise BadFile(f"it holds '{name}' twice")
        places[name] = (TYPES.get(kind, f"ggml type {kind}"), shape, offset)
    align = fields.get("general.alignment", 32)
    if not isinstance(align, int) or align < 1 or align & (align - 1):
        raise BadFile(f"its alignment is {align}; it must be a power of two")
    start = -(-cursor.at // align) * align
    return {name: _raw(cursor.data, name, start, *place) for name, place in places.items()}


def _raw(
    data: npt.NDArray[np.uint8],
    name: str,
    start: int,
    dtype: str,
    shape: tuple[int, ...],
    offset: int,
) -> Raw:
    # A type we do not decode is refused when it is used; here only its place matters.
    count = math.prod(shape) * ITEM_BYTES.get(dtype, 0)
    begin = start + offset
    if begin + count > len(data):
        raise BadFile(f"it ends at byte {len(data)}, inside its tensor '{name}'")
    return Raw(dtype, shape, data[begin : begin + count])


def _layer(name: str) -> int:
    if not (match := LAYER.fullmatch(name)):
        raise BadFile(f"its tensor '{name}' names no layer")
    return int(match[1])


def _source(cursor: _Cursor, fields: Mapping[str, object]) -> str:
    """Say which tool wrote a control vector, as far as its metadata tells them apart."""
    if fields.get("general.architecture") != ARCHITECTURE:
        return ""
    if isinstance(tool := fields.get(f"{FACTS}tool"), str):
        return tool
    if isinstance(method := fields.get(f"{ARCHITECTURE}.method"), str):
        return f"EasySteer, method '{method}'"
    if cursor.kinds.get(f"{ARCHITECTURE}.layer_count") == INT32:
        return "llama.cpp's cvector-generator"
    return ""


def _notes(
    cursor: _Cursor,
    fields: Mapping[str, object],
    tensors: Mapping[str, Raw],
    found: Mapping[int, str],
) -> tuple[str, ...]:
    notes = []
    architecture = fields.get("general.architecture", "")
    if architecture != ARCHITECTURE:
        notes.append(f"general.architecture is '{architecture}', not '{ARCHITECTURE}'")
    other = len(tensors) - len(found)
    if found and other:
        notes.append(f"{other} tensors are not named direction.N and are left out")
    if 0 in found:
        notes.append("direction.0 is used here; llama.cpp refuses files that hold it")
    if cursor.kinds.get(f"{ARCHITECTURE}.layer_count") == INT32:
        notes.append(
            "written by llama.cpp's cvector-generator, which measures direction.N at the "
            "output of block N-1; it is applied at block N, as llama.cpp does"
        )
    return tuple(notes)
