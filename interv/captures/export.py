"""Write chosen rows and their labels to one file: safetensors, or npz for numpy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from interv.captures.query import Captures
from interv.errors import IntervError, suggest
from interv.files import replacing

WRITABLE = (".npz", ".safetensors")
COLUMNS = ("position", "token_id", "layer", "sample", "after")


def export(captures: Captures, target: Path) -> None:
    """Write rows [N, H] and columns [N] to `target`; an older file is replaced in one step.

    Both formats hold `rows`, the columns, and `record`: the index of each row's record in the
    labels, which are JSON in the metadata of safetensors and in the text `records` of npz. npz
    knows no bfloat16; its rows are float32 then. Raises E221 for another suffix and E232 where
    the file cannot be written.
    """
    if target.suffix not in WRITABLE:
        message = f"'{target.name}' cannot be written by its suffix '{target.suffix}'"
        notes = (f"written: {', '.join(WRITABLE)}",)
        raise IntervError("E221", message, notes=notes, helps=suggest(target.suffix, WRITABLE))
    write = _npz(captures) if target.suffix == ".npz" else _safetensors(captures)
    with replacing(target) as part, part.open("wb") as file:
        write(file)


def _safetensors(captures: Captures) -> Callable[[IO[bytes]], object]:
    import torch
    from safetensors.torch import save

    tensors = {name: getattr(captures, name).contiguous() for name in ("rows", *COLUMNS)}
    tensors["record"] = torch.from_numpy(_record(captures))
    return lambda file: file.write(save(tensors, metadata={"records": _labels(captures)}))


def _npz(captures: Captures) -> Callable[[IO[bytes]], object]:
    import torch

    rows = captures.rows.float() if captures.rows.dtype == torch.bfloat16 else captures.rows
    arrays: dict[str, npt.NDArray[Any]] = {"rows": rows.numpy(), "record": _record(captures)}
    arrays |= {name: getattr(captures, name).numpy() for name in COLUMNS}
    arrays |= {name: getattr(captures, name).astype(str) for name in ("request", "site")}
    arrays["records"] = np.array(_labels(captures))
    return lambda file: np.savez(file, allow_pickle=False, **arrays)


def _record(captures: Captures) -> npt.NDArray[np.int64]:
    numbers: dict[tuple[Path, int], int] = {}
    for piece in captures.pieces:
        numbers.setdefault((piece.path, piece.index[0]), len(numbers))
    own = [numbers[piece.path, piece.index[0]] for piece in captures.pieces]
    return np.repeat(np.array(own, np.int64), [piece.count for piece in captures.pieces])


def _labels(captures: Captures) -> str:
    return json.dumps([record.model_dump(mode="json") for record in captures.records])
