"""Write directions to a file, in the format its suffix names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from interv.errors import IntervError, suggest
from interv.files import replacing
from interv.vectors import gguf_file, pt_file, safetensors_file
from interv.vectors.directions import Directions, Vector

WRITABLE = (".gguf", ".pt", ".safetensors")


def save_vectors(
    path: Path,
    vectors: Directions | Mapping[int, Vector],
    hint: str = "",
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write a bank, or one direction for all layers, to `path`; an older file is replaced.

    Safetensors holds both, as `layer.N` or as `direction`, and `.pt` as a dict by layer or as a
    bare tensor, in the arrays' own float type. GGUF holds banks in float32, without layer 0.
    `hint` names the model, `facts` say how the directions were made: both default to what loaded
    directions say, and `.pt` holds no facts. The file appears whole or not at all. Raises E221 for
    a suffix that cannot be written, E230 for what the format cannot hold and E232 where the folder
    does not take the file.
    """
    if path.suffix not in WRITABLE:
        raise IntervError(
            "E221",
            f"'{path.name}' cannot be written by its suffix '{path.suffix}'",
            notes=(f"written: {', '.join(WRITABLE)}",),
            helps=suggest(path.suffix, WRITABLE),
        )
    single = vectors.single if isinstance(vectors, Directions) else None
    bank = vectors.by_layer if isinstance(vectors, Directions) else vectors
    if isinstance(vectors, Directions):
        hint = hint or vectors.hint
        facts = vectors.facts if facts is None else facts
    if path.suffix == ".gguf":
        _check_gguf(path, bank, single)
    with replacing(path) as part:
        if path.suffix == ".gguf":
            gguf_file.write(part, bank, hint, facts or {})
        elif path.suffix == ".pt":
            pt_file.write(part, bank if single is None else single, hint)
        else:
            safetensors_file.write(part, _named(bank, single), hint, facts or {})


def _named(
    bank: Mapping[int, Vector], single: Vector | None
) -> dict[str, npt.NDArray[np.floating]]:
    if single is not None:
        return {"direction": np.array(single)}
    return {f"layer.{layer}": np.array(bank[layer]) for layer in sorted(bank)}


def _check_gguf(path: Path, bank: Mapping[int, Vector], single: Vector | None) -> None:
    if single is not None:
        raise IntervError(
            "E230",
            f"'{path.name}': a GGUF control vector cannot hold one direction for all layers",
            helps=("write it as .safetensors",),
        )
    if 0 in bank:
        raise IntervError(
            "E230",
            f"'{path.name}': a GGUF control vector cannot hold layer 0",
            notes=("llama.cpp refuses the whole file when it meets 'direction.0'",),
            helps=("leave layer 0 out (convert --drop), or write it as .safetensors",),
        )
