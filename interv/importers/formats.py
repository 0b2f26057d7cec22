"""The formats that can be imported, and how a file is told to be of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from interv.errors import IntervError, suggest
from interv.importers import (
    chatspace,
    easysteer_v0,
    easysteer_v2,
    pyreft,
    rhizonymph,
    vector_file,
)
from interv.importers.draft import Draft
from interv.importers.fields import Fields, as_object, check_size, read_json


class Format(NamedTuple):
    """A format: what it is called in a document, and what reads it."""

    title: str
    read: Callable[[Fields, Draft, str], None]


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "easysteer-v0": Format("an EasySteer request, version 0", easysteer_v0.read),
        "easysteer-v2": Format("an EasySteer spec, version 2", easysteer_v2.read),
        "chatspace": Format("a chatspace spec", chatspace.read_spec),
        "chatspace-bundle": Format("a chatspace bundle", chatspace.read_bundle),
        "rhizonymph": Format("a RhizoNymph module", rhizonymph.read),
        "pyreft": Format("a pyreft folder", pyreft.read),
        "vectors": Format("a file of vectors", vector_file.read),
    }
)


# What torch and pickle save; everything else is JSON.
SAVED = (".pt", ".pkl", ".pickle")


def open_file(path: Path, wanted: str | None) -> tuple[str, Fields]:
    """Return the format of a file, `wanted` where it is given, and its fields.

    Raises E200 and E110 for a file that cannot be read, E260 where no format is wanted and none
    is plain from the fields, E211 for a format that there is not.
    """
    if wanted is not None and wanted not in FORMATS:
        raise IntervError(
            "E211",
            f"'{wanted}' is not a format",
            notes=(f"formats: {', '.join(FORMATS)}",),
            helps=suggest(wanted, FORMATS),
        )
    if path.is_dir():
        _expect(path, wanted, "pyreft")
        return "pyreft", pyreft.open_folder(path)
    if wanted == "pyreft":
        notes = ("it is a file, and pyreft saves a folder",)
        raise IntervError("E211", f"'{path}' is not of format 'pyreft'", notes=notes)
    if wanted == "vectors" or (wanted is None and path.suffix in vector_file.SUFFIXES):
        return "vectors", vector_file.open_vectors(path)
    if path.suffix in SAVED:
        return _saved(path, wanted)
    fields = as_object(read_json(path), path.name)
    fields = Fields(fields.values)
    found = wanted or _told(fields)
    if found is None and vector_file.holds_vectors(path):
        return "vectors", vector_file.open_vectors(path)
    if found is None:
        raise IntervError(
            "E260",
            f"'{path}' is of no format that can be imported",
            notes=(f"fields there: {', '.join(fields.values) or 'none'}"[:300],),
            helps=(f"--format says which it is: {', '.join(FORMATS)}",),
        )
    return found, fields


def _saved(path: Path, wanted: str | None) -> tuple[str, Fields]:
    check_size(path)
    try:
        found, fields = chatspace.load_saved(path)
    except IntervError as error:
        if wanted is None and error.code == "E260" and vector_file.holds_vectors(path):
            return "vectors", vector_file.open_vectors(path)
        raise
    _expect(path, wanted, found)
    return found, fields


def _expect(path: Path, wanted: str | None, found: str) -> None:
    if wanted not in (None, found):
        note = f"it is {FORMATS[found].title}"
        raise IntervError("E211", f"'{path}' is not of format '{wanted}'", notes=(note,))


def _told(fields: Fields) -> str | None:
    names, vectors = set(fields.values), fields.values.get("vectors")
    v0 = {*easysteer_v0.PATHS, easysteer_v0.SEVERAL, "steer_vector_name"}
    checks = {
        "easysteer-v2": isinstance(vectors, list),
        "chatspace-bundle": {"vectors", "experiments"} <= names,
        "chatspace": isinstance(fields.values.get("layers"), dict),
        "easysteer-v0": bool(names & v0),
        "rhizonymph": bool(names & set(rhizonymph.TIERS)),
    }
    return next((name for name, met in checks.items() if met), None)
