"""Load the directions that a declaration names, or say exactly what is wrong with the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from interv.document.spec import Numbering, VectorDecl
from interv.errors import IntervError, Span, each, raise_all, suggest
from interv.vectors import gguf_file, json_file, numpy_file, pt_file, safetensors_file
from interv.vectors.choose import choose
from interv.vectors.directions import Directions, Vector, make_directions
from interv.vectors.fields import ROWS_FIELD
from interv.vectors.origins import origin
from interv.vectors.raw import Contents, named, rounds
from interv.vectors.words import EVERY, at_text, list_text

Readers: TypeAlias = Mapping[str, Callable[[Path], Contents]]
READERS: Readers = {
    ".bin": pt_file.read,
    ".gguf": gguf_file.read,
    ".json": json_file.read,
    ".npy": numpy_file.read_npy,
    ".npz": numpy_file.read_npz,
    ".pickle": pt_file.read_pickle,
    ".pkl": pt_file.read_pickle,
    ".pt": pt_file.read,
    ".pth": pt_file.read,
    ".safetensors": safetensors_file.read,
    ".svec": json_file.read,
}


# Where a file is missing, these are named in its place: `.json` and `.bin` may be anything.
LISTED = READERS.keys() - {".bin", ".json"}
# The same without torch: NeedsTorch is raised for what only it may be able to read.
LIGHT: Readers = {
    **READERS,
    **dict.fromkeys((".bin", ".pt", ".pth"), partial(pt_file.read, light=True)),
}


def load_vector(
    decl: VectorDecl, root: Path, span: Span | None = None, light: bool = False
) -> Directions:
    """Load the vector that `decl` declares; relative paths start at `root`.

    A file with a direction for each layer gives a bank, one tensor of shape [H] (or chosen by
    `key`) a direction for every layer, one tensor [L, H] a bank whose row i is layer i, or
    hidden_states[i] where `rows` or the file says so. `row` takes one row of a tensor, `unit`
    normalises in float64. Raises E220 to E228 and E237 to E239, at `span`, naming file, tensor and
    layer. If `light`, torch is not loaded, and NeedsTorch is raised for what only it may be able
    to read.
    """
    try:
        return _load(decl, root, LIGHT if light else READERS)
    except IntervError as error:
        found = [_declared(one, decl, span) for one in each(error)]
    raise_all(found)
    raise AssertionError("an error that holds no error")


def read_vectors(
    path: Path, key: str | None = None, row: int | None = None, rows: Numbering | None = None
) -> Directions:
    """Load a vector file outside any document; messages name the file alone."""
    return _load(VectorDecl(name="_", path=str(path), key=key, row=row, rows=rows), Path())


def _declared(error: IntervError, decl: VectorDecl, span: Span | None) -> IntervError:
    message = f"vector '{decl.name}': {error.message}"
    return IntervError(error.code, message, span, notes=error.notes, helps=error.helps)


def _load(decl: VectorDecl, root: Path, readers: Readers = READERS) -> Directions:
    path = root / decl.path
    contents = _read(path, decl.path, readers)
    with named(path, decl.path):
        chosen = choose(contents, decl)
    _check(chosen.found, decl.path)
    likely = None if contents.source else origin(contents, path.stem)
    if likely is not None:
        chosen.notes += likely.notes(chosen.site, chosen.rows, chosen.numbering)
    return make_directions(
        decl.name,
        path,
        contents.format,
        chosen.found,
        unit=decl.unit,
        rows=chosen.rows,
        hint=contents.hint,
        notes=contents.notes,
        source=contents.source,
        rounded=any(rounds(raw) for raw in chosen.raws),
        facts={name: text for name, text in contents.facts.items() if name != ROWS_FIELD},
        reading=tuple(chosen.notes),
        numbering=chosen.numbering,
        measured=chosen.site,
        origin=likely,
    )


def _read(path: Path, shown: str, readers: Readers) -> Contents:
    if path.suffix not in READERS:
        raise IntervError(
            "E221",
            f"'{shown}' is not a vector file by its suffix '{path.suffix}'",
            notes=(f"suffixes: {', '.join(READERS)}",),
            helps=suggest(path.suffix, READERS),
        )
    if not path.is_file():
        raise _missing(path, shown)
    with named(path, shown):
        return readers[path.suffix](path)


def _missing(path: Path, shown: str) -> IntervError:
    if path.exists():
        return IntervError("E220", f"'{shown}' is not a file")
    folder = path.parent
    if not folder.is_dir():
        return IntervError(
            "E220", f"'{shown}' does not exist", notes=(f"there is no folder '{folder.name}'",)
        )
    here = sorted(item.name for item in folder.iterdir() if item.suffix in LISTED)
    return IntervError(
        "E220",
        f"'{shown}' does not exist",
        notes=(f"vector files in its folder: {list_text(here)}",),
        helps=suggest(path.name, here),
    )


def _check(found: dict[int, Vector] | Vector, shown: str) -> None:
    bank = found if isinstance(found, dict) else {EVERY: found}
    errors = []
    widths = {layer: vector.shape[0] for layer, vector in bank.items()}
    if len(set(widths.values())) > 1 or 0 in widths.values():
        errors.append(_width_error(widths, shown))
    rough = [layer for layer, vector in bank.items() if not np.isfinite(vector).all()]
    if rough:
        errors.append(IntervError("E225", f"'{shown}' holds NaN or infinity{at_text(rough)}"))
    zero = [n for n, row in bank.items() if n not in rough and row.size and not row.any()]
    if zero:
        errors.append(IntervError("E226", f"'{shown}' holds a zero direction{at_text(zero)}"))
    raise_all(errors)


def _width_error(widths: Mapping[int, int], shown: str) -> IntervError:
    by_width: dict[int, list[int]] = {}
    for layer, width in widths.items():
        by_width.setdefault(width, []).append(layer)
    notes = tuple(f"width {w}{at_text(layers)}" for w, layers in sorted(by_width.items()))
    words = "has directions of different widths" if len(by_width) > 1 else "has no values"
    return IntervError("E228", f"'{shown}' {words}", notes=notes)
