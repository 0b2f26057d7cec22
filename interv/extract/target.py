"""What an extraction is written to, and what its format can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from interv.document.sites import POST_ATTN, POST_BLOCK, PRE_ATTN
from interv.document.wording import layer_text
from interv.errors import IntervError, suggest
from interv.extract.extraction import Extraction
from interv.vectors import save_vectors
from interv.vectors.directions import Vector

FORMATS = (".gguf", ".safetensors")


@dataclass(frozen=True, slots=True)
class Target:
    """A file, and which of the layers asked for it takes under which number."""

    path: Path
    numbers: Mapping[int, int]  # layer of the site -> number in the file
    remarks: tuple[str, ...] = ()


def plan_target(path: Path, site: str, layers: Sequence[int], *, force: bool = False) -> Target:
    """Say how the layers of a site are written to `path`, before anything is run.

    In GGUF `direction.N` belongs to the output of block N, N ≥ 1: `pre_attn[L]` is
    `post_block[L-1]` and is written as that. Raises E221 for another suffix, E231 for a file that
    exists, E232 for a folder that does not, E287 for what the format cannot hold.
    """
    if path.suffix not in FORMATS:
        raise IntervError(
            "E221",
            f"'{path.name}' cannot be written by its suffix '{path.suffix}'",
            notes=(f"written: {', '.join(FORMATS)}",),
            helps=suggest(path.suffix, FORMATS),
        )
    if path.exists() and not force:
        raise IntervError("E231", f"'{path}' exists already", helps=("--force replaces it",))
    if not path.parent.is_dir():
        reason = f"there is no folder '{path.parent}'"
        raise IntervError("E232", f"'{path}' cannot be written", notes=(reason,))
    if path.suffix == ".safetensors":
        return Target(path, {layer: layer for layer in layers})
    return _gguf(path, site, layers)


def _gguf(path: Path, site: str, layers: Sequence[int]) -> Target:
    other = str(path.with_suffix(".safetensors"))
    if site == POST_ATTN:
        raise IntervError(
            "E287",
            f"'{path.name}': a GGUF control vector has no place for {POST_ATTN}",
            notes=(f"its direction.N belongs to {POST_BLOCK}[N]",),
            helps=(f"write it as '{other}'",),
        )
    shift = 1 if site == PRE_ATTN else 0
    kept = {layer: layer - shift for layer in layers if layer - shift >= 1}
    left = [layer for layer in layers if layer not in kept]
    if not kept:
        raise IntervError(
            "E287",
            f"'{path.name}': a GGUF control vector holds no layer of {site}[{layer_text(layers)}]",
            notes=("direction.0 is refused by llama.cpp",),
            helps=(f"write it as '{other}'",),
        )
    remarks = []
    if shift:
        remarks.append(f"{PRE_ATTN}[L] is written as direction.L-1: it is {POST_BLOCK}[L-1]")
    if left:
        remarks.append(f"{site}[{layer_text(left)}] is left out: GGUF has no direction below 1")
    return Target(path, kept, tuple(remarks))


def write_target(target: Target, extraction: Extraction, facts: Mapping[str, str]) -> None:
    """Write the directions in float32, with `facts` in the file's metadata.

    Raises E232 where the folder does not take the file.
    """
    bank: dict[int, Vector] = {
        target.numbers[one.layer]: one.direction.astype(np.float32)
        for one in extraction.results
        if one.layer in target.numbers
    }
    save_vectors(target.path, bank, facts["model"], facts)
