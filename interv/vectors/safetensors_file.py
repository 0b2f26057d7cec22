"""Read and write directions as safetensors: `layer.N` for each layer, or one tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from interv.files import MIB, open_regular
from interv.vectors.raw import FACTS, BadFile, Contents, Raw, facts_of

LARGEST_HEADER = 16 * MIB


def read(path: Path) -> Contents:
    """Return the tensors of a safetensors file without loading them.

    Raises BadFile where the header is not valid or does not agree with the file's size.
    """
    from safetensors import SafetensorError, safe_open

    _check_header(path)
    try:
        # It checks sizes, offsets and overlaps against the file before anything is allocated.
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise BadFile(str(error)) from error
    data = np.memmap(path, dtype=np.uint8, mode="r")
    size = int(data[:8].view("<u8")[0])
    header = json.loads(data[8 : 8 + size].tobytes())
    tensors = {name: _raw(header[name], data[8 + size :]) for name in sorted(names)}
    hint, facts = metadata.get("model_hint", ""), facts_of(metadata)
    source = facts.get("tool", "")
    return Contents("safetensors", tensors, hint=hint, source=source, facts=facts)


def _check_header(path: Path) -> None:
    with open_regular(path) as file:
        size = int.from_bytes(file.read(8), "little")
        if size > LARGEST_HEADER and size < path.stat().st_size:
            raise BadFile(f"its header is larger than {LARGEST_HEADER // MIB} MiB")


def write(
    path: Path,
    tensors: Mapping[str, npt.NDArray[np.floating]],
    hint: str,
    facts: Mapping[str, str],
) -> None:
    """Write arrays under their names; `hint` names the model they are for, `facts` how."""
    from safetensors.numpy import save

    metadata = {"model_hint": hint} if hint else {}
    metadata |= {FACTS + name: text for name, text in facts.items()}
    # Not `save_file`, whose files nobody but their owner may read.
    path.write_bytes(_ordered(save(dict(tensors), metadata=metadata or None)))


def _ordered(data: bytes) -> bytes:
    """Sort a file's metadata, which the library writes in any order: same input, same bytes."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    if len(metadata := header.get("__metadata__", {})) < 2:
        return data
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[start:]


def _raw(entry: Mapping[str, object], body: npt.NDArray[np.uint8]) -> Raw:
    shape, offsets = entry["shape"], entry["data_offsets"]
    assert isinstance(shape, list)
    assert isinstance(offsets, list)
    return Raw(str(entry["dtype"]), tuple(shape), body[offsets[0] : offsets[1]])
