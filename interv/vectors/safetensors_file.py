"""Read and write directions as safetensors: `layer.N` for each layer, or one tensor."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from interv.vectors.raw import BadFile, Contents, Raw

LAYER = re.compile(r"layer\.(0|[1-9][0-9]{0,5})")


def read(path: Path) -> Contents:
    """Return the tensors of a safetensors file without loading them.

    Raises BadFile where the header is not valid or does not agree with the file's size.
    """
    from safetensors import SafetensorError, safe_open

    try:
        # It checks sizes, offsets and overlaps against the file before anything is allocated.
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            hint = (file.metadata() or {}).get("model_hint", "")
    except SafetensorError as error:
        raise BadFile(str(error)) from error
    data = np.memmap(path, dtype=np.uint8, mode="r")
    size = int(data[:8].view("<u8")[0])
    header = json.loads(data[8 : 8 + size].tobytes())
    tensors = {name: _raw(header[name], data[8 + size :]) for name in sorted(names)}
    found = {int(m[1]): name for name in tensors if (m := LAYER.fullmatch(name))}
    return Contents("safetensors", tensors, dict(sorted(found.items())), hint)


def write(path: Path, tensors: Mapping[str, npt.NDArray[np.floating]], hint: str) -> None:
    """Write arrays under their names; `hint` names the model they are for."""
    from safetensors.numpy import save

    # Not `save_file`, whose files nobody but their owner may read.
    path.write_bytes(save(dict(tensors), metadata={"model_hint": hint} if hint else None))


def _raw(entry: Mapping[str, object], body: npt.NDArray[np.uint8]) -> Raw:
    shape, offsets = entry["shape"], entry["data_offsets"]
    assert isinstance(shape, list)
    assert isinstance(offsets, list)
    return Raw(str(entry["dtype"]), tuple(shape), body[offsets[0] : offsets[1]])
