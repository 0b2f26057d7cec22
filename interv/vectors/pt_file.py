"""Read and write `.pt` files, and read pickles: as data alone.

What `torch.load(weights_only=True)` reads is read by it. For the rest of what people save, arrays
of numpy and objects as attributes, there is `interv.vectors.pickles`, which runs nothing either.
"""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from interv.files import MIB, check_regular, map_regular
from interv.vectors.interpret import contents
from interv.vectors.pickle_values import Budget, unpack
from interv.vectors.pickles import Refused, loads
from interv.vectors.raw import BadFile, Contents, NeedsTorch

# A record of ours beside those of torch, which it does not look at.
HINT = "interv/model_hint"
MOST_HINT_BYTES = 1 << 10
# An adapter of float64 maps [H, H] for 8 layers of 8192 is as large.
MOST_BYTES = 4096 * MIB
# What zipfile raises of a damaged entry: names that are not UTF-8, passwords, headers cut short,
# places before the start of the file.
UNREADABLE = (
    zipfile.BadZipFile,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
)


def read(path: Path, light: bool = False) -> Contents:
    """Return the directions of a `.pt` file: a bare array (named ""), a dict of arrays, or more.

    Keys are layers (`14` or "layer.14") or names; chatspace's bundles and specs are read too.
    Raises BadFile for anything else, for what would have to be called, for the format torch wrote
    before version 1.6, and for archives that would unpack to more than the file's size.
    """
    found = contents(load(path, light=light), "pt", path.stat().st_size)
    return replace(found, hint=_hint(path))


def read_pickle(path: Path) -> Contents:
    """Return the directions of a pickle, which holds what a `.pt` file does."""
    return contents(load_pickle(path), "pkl", path.stat().st_size)


def load_pickle(path: Path) -> object:
    """Return what a pickle holds; raise BadFile as `loads` does.

    Only what is looked at is read: most of a file may be a hole.
    """
    return loads(map_regular(path, MOST_BYTES))


def load(path: Path, allowed: Sequence[type] = (), light: bool = False) -> object:
    """Return what a `.pt` file holds: tensors, arrays, plain containers, and `allowed` types.

    An allowed type must do nothing when it is made and filled. Raises BadFile as `read` does. If
    `light`, torch is not loaded, and NeedsTorch is raised for what it may be able to read.
    """
    check_regular(path, MOST_BYTES)
    _check_archive(path)
    if light:
        return _load_light(path)
    import torch

    try:
        # Its remarks on pickle protocols say nothing about the numbers that are read.
        with (
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals(list(allowed)),
        ):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return _load_as_data(path)
    except Exception as error:
        # torch raises whatever its zip reader or unpickler met, of any class: it is the file.
        raise BadFile((str(error) or type(error).__name__).splitlines()[0]) from error


def write(
    path: Path,
    directions: Mapping[int, npt.NDArray[np.floating]] | npt.NDArray[np.floating],
    hint: str,
) -> None:
    """Write a dict of tensors [H] by layer, or one bare tensor, in the arrays' own float type.

    `hint`, the model they are for, is kept beside what torch reads.
    """
    import torch

    held: object
    if isinstance(directions, Mapping):
        held = {layer: torch.tensor(directions[layer]) for layer in sorted(directions)}
    else:
        held = torch.tensor(directions)
    # Through memory, for torch names the archive after the file, and bytes should not depend on it.
    buffer = io.BytesIO()
    torch.save(held, buffer)
    if hint:
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr(zipfile.ZipInfo(f"archive/{HINT}"), hint)
    path.write_bytes(buffer.getvalue())


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BadFile(
            "it is not an archive of torch 1.6 or later; load and save it again with torch"
        ) from error
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise BadFile("its archive unpacks to more than the file's own size")


def _load_light(path: Path) -> object:
    try:
        return _load_as_data(path)
    except Refused:
        raise
    except BadFile as error:
        raise NeedsTorch(str(error)) from error


def _load_as_data(path: Path) -> object:
    """Read an archive that torch refuses: its pickle as data, its storages by their keys."""
    with zipfile.ZipFile(path) as archive:
        # Of the archive: where arrays are storages of their own, the pickle is a few words.
        budget = Budget(path.stat().st_size)
        known: dict[str, object] = {}
        found = [name for name in archive.namelist() if PurePosixPath(name).name == "data.pkl"]
        if len(found) != 1:
            raise BadFile("it is not an archive of torch")
        root = PurePosixPath(found[0]).parent

        def storage(said: tuple[object, ...]) -> object:
            if len(said) < 5 or type(said[2]) is not str:
                raise BadFile("its pickle holds a torch storage that is damaged")
            if said[2] not in known:  # tensors may be views of one storage
                data = _entry(archive, f"{root}/data/{said[2]}")
                known[said[2]] = unpack(said, data, budget)
            return known[said[2]]

        return loads(_entry(archive, found[0]), storage, budget)


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except UNREADABLE as error:
        raise BadFile(f"its archive lacks a readable '{name}'") from error


def _hint(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(f"/{HINT}") and entry.file_size <= MOST_HINT_BYTES:
                return _entry(archive, entry.filename).decode(errors="replace")
    return ""
