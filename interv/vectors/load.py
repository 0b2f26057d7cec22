"""Load the directions that a declaration names, or say exactly what is wrong with the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from interv.document.spec import VectorDecl
from interv.errors import IntervError, Span, each, raise_all, suggest
from interv.vectors import gguf_file, pt_file, safetensors_file
from interv.vectors.directions import Directions, Vector, make_directions
from interv.vectors.raw import Contents, Raw, decode, named, rounds
from interv.vectors.words import EVERY, at_text, list_text

Readers: TypeAlias = Mapping[str, Callable[[Path], Contents]]
READERS: Readers = {
    ".gguf": gguf_file.read,
    ".pickle": pt_file.read_pickle,
    ".pkl": pt_file.read_pickle,
    ".pt": pt_file.read,
    ".safetensors": safetensors_file.read,
}


# The same without torch: NeedsTorch is raised for what only it may be able to read.
LIGHT: Readers = {
    **READERS,
    ".pt": partial(pt_file.read, light=True),
}


def load_vector(
    decl: VectorDecl, root: Path, span: Span | None = None, light: bool = False
) -> Directions:
    """Load the vector that `decl` declares; relative paths start at `root`.

    A file with a direction for each layer gives a bank, one tensor of shape [H] (or chosen by
    `key`) a direction for every layer, one tensor [L, H] a bank whose row i is layer i. `unit`
    normalises in float64. Raises E220 to E228, at `span`, naming file, tensor and layer. If
    `light`, torch is not loaded, and NeedsTorch is raised for what only it may be able to read.
    """
    try:
        return _load(decl, root, LIGHT if light else READERS)
    except IntervError as error:
        found = [_declared(one, decl, span) for one in each(error)]
    raise_all(found)
    raise AssertionError("an error that holds no error")


def read_vectors(path: Path, key: str | None = None) -> Directions:
    """Load a vector file outside any document; messages name the file alone."""
    return _load(VectorDecl(name="_", path=str(path), key=key), Path())


def _declared(error: IntervError, decl: VectorDecl, span: Span | None) -> IntervError:
    message = f"vector '{decl.name}': {error.message}"
    return IntervError(error.code, message, span, notes=error.notes, helps=error.helps)


def _load(decl: VectorDecl, root: Path, readers: Readers = READERS) -> Directions:
    path = root / decl.path
    contents = _read(path, decl.path, readers)
    names = _names(contents, decl.path, decl.key)
    found, rows = _meaning(contents, names, decl.path, decl.key)
    _check(found, decl.path)
    return make_directions(
        decl.name,
        path,
        contents.format,
        found,
        unit=decl.unit,
        rows=rows,
        hint=contents.hint,
        notes=contents.notes,
        source=contents.source,
        rounded=any(rounds(contents.tensors[name]) for name in names),
        facts=contents.facts,
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
    here = sorted(item.name for item in folder.iterdir() if item.suffix in READERS)
    return IntervError(
        "E220",
        f"'{shown}' does not exist",
        notes=(f"vector files in its folder: {list_text(here)}",),
        helps=suggest(path.name, here),
    )


def _names(contents: Contents, shown: str, key: str | None) -> list[str]:
    """Return the tensors that file and key mean: several are a bank, by `contents.layers`."""
    names = list(contents.tensors)
    if not names:
        raise IntervError("E223", f"'{shown}' holds no tensors")
    if key is not None:
        if key not in contents.tensors:
            raise IntervError(
                "E223",
                f"'{shown}' holds no tensor '{key}'",
                notes=(f"tensors there: {list_text(names)}",),
                helps=suggest(key, names),
            )
        return [key]
    mixed = contents.format != "gguf" and len(contents.layers) < len(names)
    if contents.layers and not mixed:
        return list(contents.layers.values())
    if len(names) > 1:
        raise IntervError(
            "E224",
            f"'{shown}' holds {len(names)} tensors, and no key says which is meant",
            notes=(f"tensors there: {list_text(names)}",),
            helps=(f'choose one: key "{names[0]}"',),
        )
    return names


def _meaning(
    contents: Contents, names: list[str], shown: str, key: str | None
) -> tuple[dict[int, Vector] | Vector, int | None]:
    """Return the directions of some tensors, and the rows of a two-dimensional one."""
    if all(name in contents.own_layers for name in names):
        return _bank(contents, {contents.own_layers[name]: name for name in names}, shown), None
    if key is None and names == list(contents.layers.values()):
        return _bank(contents, contents.layers, shown), None
    return _one(contents.tensors[names[0]], names[0], shown)


def _bank(contents: Contents, layers: Mapping[int, str], shown: str) -> dict[int, Vector]:
    bank = {}
    for layer, name in layers.items():
        raw = contents.tensors[name]
        if len(raw.shape) != 1:
            raise _rank(shown, name, raw, "[H]")
        bank[layer] = _decode(raw, name, shown)
    return bank


def _one(raw: Raw, name: str, shown: str) -> tuple[dict[int, Vector] | Vector, int | None]:
    if len(raw.shape) not in (1, 2):
        raise _rank(shown, name, raw, "[H] or [L, H]")
    values = _decode(raw, name, shown)
    if values.ndim == 1:
        return values, None
    # One row is what is left of a batch axis: one direction, not a model of one block.
    if len(values) == 1:
        return values[0], None
    return dict(enumerate(values)), len(values)


def _decode(raw: Raw, name: str, shown: str) -> Vector:
    try:
        return decode(raw)
    except IntervError as error:
        where = f"'{name}' in '{shown}'" if name else f"'{shown}'"
        raise IntervError(error.code, f"{where}: {error.message}", notes=error.notes) from error


def _rank(shown: str, name: str, raw: Raw, wanted: str) -> IntervError:
    where = f"'{name}' in '{shown}'" if name else f"'{shown}'"
    return IntervError(
        "E227", f"{where} has shape {list(raw.shape)}", notes=(f"a direction has shape {wanted}",)
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
