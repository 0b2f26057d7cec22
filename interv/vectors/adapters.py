"""Load the adapter that a declaration names, or say exactly what is wrong with it."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from interv.document.spec import AdapterDecl
from interv.errors import IntervError, Span, each, raise_all, suggest
from interv.vectors import lm_steer, plain, pyreft, safetensors_file
from interv.vectors.arrays import PICKLES, read_arrays
from interv.vectors.raw import BadFile
from interv.vectors.updates import Adapter, Found, Linear, LowRank, make_adapter
from interv.vectors.words import list_text

__all__ = ["Adapter", "Linear", "LowRank", "is_adapter", "load_adapter", "read_adapter"]

SUFFIXES = (".pt", ".safetensors", *PICKLES)
# LM-Steer saves its arguments beside the tensors; a namespace only holds what it is filled with.
BESIDE = (Namespace,)


def load_adapter(
    decl: AdapterDecl, root: Path, span: Span | None = None, light: bool = False
) -> Adapter:
    """Load the adapter that `decl` declares; relative paths start at `root`.

    A folder is pyreft's, `folder#1` one unit of it; a `.pt`, `.pkl` or `.safetensors` file holds
    LM-Steer's projections, or plain tensors. Raises E220 to E228, E233 to E235 and E840 to E842,
    at `span`, naming file, tensor and layer.
    If `light`, torch is not loaded, and NeedsTorch is raised for what only it may be able to read.
    """
    try:
        return _load(decl, root, light)
    except IntervError as error:
        found = [_declared(one, decl, span) for one in each(error)]
    raise_all(found)
    raise AssertionError("an error that holds no error")


def read_adapter(path: Path) -> Adapter:
    """Load an adapter outside any document; messages name the file alone."""
    return _load(AdapterDecl(name="_", path=str(path)), Path())


def is_adapter(path: Path) -> bool:
    """Say whether a path holds an adapter rather than directions, by its names and shapes alone."""
    if pyreft.split_unit(path)[0].is_dir():
        return True
    try:
        if path.suffix == ".safetensors":
            tensors = safetensors_file.read(path).tensors
            return plain.is_plain({name: raw.shape for name, raw in tensors.items()})
        if path.suffix in (".pt", *PICKLES):
            arrays = read_arrays(path, path.name, BESIDE)
            shapes = {name: values.shape for name, values in arrays.by_name.items()}
            return lm_steer.is_lm_steer(arrays) or plain.is_plain(shapes)
    except (IntervError, BadFile, OSError):
        return False
    return False


def _declared(error: IntervError, decl: AdapterDecl, span: Span | None) -> IntervError:
    message = f"adapter '{decl.name}': {error.message}"
    return IntervError(error.code, message, span, notes=error.notes, helps=error.helps)


def _load(decl: AdapterDecl, root: Path, light: bool = False) -> Adapter:
    path = root / decl.path
    return make_adapter(decl.name, path, decl.path, _read(path, decl.path, light))


def _read(path: Path, shown: str, light: bool) -> Found:
    folder, unit = pyreft.split_unit(path)
    if unit is not None and folder.is_dir():
        return pyreft.read(folder, shown.rpartition("#")[0], light, unit)
    if not path.exists():
        raise _missing(path, shown)
    if path.is_dir():
        return pyreft.read(path, shown, light)
    if path.suffix not in SUFFIXES:
        raise IntervError(
            "E221",
            f"'{shown}' is not an adapter by its suffix '{path.suffix}'",
            notes=(f"an adapter is a pyreft folder, or a file: {', '.join(SUFFIXES)}",),
            helps=("name the folder that holds it",) if path.suffix == ".bin" else (),
        )
    arrays = read_arrays(path, shown, BESIDE, light)
    if lm_steer.is_lm_steer(arrays):
        return lm_steer.from_arrays(arrays)
    return plain.from_arrays(arrays)


def _missing(path: Path, shown: str) -> IntervError:
    folder = path.parent
    if not folder.is_dir():
        note = f"there is no folder '{folder.name}'"
        return IntervError("E220", f"'{shown}' does not exist", notes=(note,))
    here = sorted(
        item.name for item in folder.iterdir() if item.is_dir() or item.suffix in SUFFIXES
    )
    return IntervError(
        "E220",
        f"'{shown}' does not exist",
        notes=(f"folders and adapter files there: {list_text(here)}",),
        helps=suggest(path.name, here),
    )
