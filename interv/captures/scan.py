"""What is in a folder of captures, and what is not complete there; no row is read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from interv.errors import IntervError
from interv.sinks.manifest import Listed, Manifest, read_manifest
from interv.sinks.reading import CaptureFile, is_ours, shapes
from interv.sinks.schema import MANIFEST, PART_SUFFIX, SUFFIX, PartLabels, RecordLabels

ELEMENT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1, "F8_E4M3": 1}


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the folder, and what the manifest says of it, if it does."""

    path: Path
    listed: Listed | None

    def records(self) -> tuple[RecordLabels, ...]:
        """Return the labels of its records: the manifest's, or else the file's own."""
        if self.listed is not None:
            return self.listed.records
        with CaptureFile(self.path, framework="np") as file:
            return file.records


@dataclass(frozen=True, slots=True)
class Folder:
    """The files to read, why something may be missing, and where the manifest is not true."""

    path: Path
    files: tuple[Found, ...]
    incomplete: tuple[str, ...]
    errors: tuple[IntervError, ...]


def scan(folder: Path) -> Folder:
    """Look through a folder of captures.

    Raises E275 where there is no such folder or nothing of ours in it; what its manifest gets
    wrong is in `errors` (E274 for a file that is not as listed, E279 for a name that leads out).
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise IntervError("E275", f"'{folder}' cannot be read: {reason}") from error
    has_manifest = MANIFEST in names
    manifest = read_manifest(folder / MANIFEST) if has_manifest else Manifest()
    errors = tuple(_untrue(folder, manifest))
    unlisted = [one for one in names if one.endswith(SUFFIX) and one not in manifest.files]
    ours = [one for one in unlisted if _inside(folder, one) and is_ours(folder / one)]
    parts = [one for one in names if one.endswith(PART_SUFFIX)]
    if not has_manifest and not ours and not parts:
        helps = ('give the folder that a sink writes to: filesystem("acts/")',)
        raise IntervError("E275", f"'{folder}' holds no captured rows", helps=helps)
    files = [Found(folder / name, listed) for name, listed in manifest.files.items()]
    files += [Found(folder / name, None) for name in ours]
    incomplete = [f"{json.dumps(name)} was being written, and is not read" for name in parts]
    incomplete += _gaps(manifest, has_manifest)
    for name in unlisted:
        what = "is complete, but not in the manifest" if name in ours else "is not of a capture"
        incomplete += [f"{json.dumps(name)} {what}"] if has_manifest or name not in ours else []
    return Folder(folder, tuple(files), tuple(incomplete), errors)


def stored_bytes(part: PartLabels) -> int:
    """Return the bytes of a part's rows as they are stored."""
    return sum(ELEMENT_BYTES[dtype] * math.prod(shape) for dtype, shape in shapes(part).values())


def _gaps(manifest: Manifest, has_manifest: bool) -> Iterator[str]:
    if not has_manifest:
        yield f"there is no {MANIFEST}: whether files are missing cannot be told"
    for number in manifest.wrong:
        yield f"line {number} of {MANIFEST} is torn"
    for session in manifest.open:
        yield f"session {json.dumps(session)} has not closed: it still runs, or was ended early"


def _untrue(folder: Path, manifest: Manifest) -> Iterator[IntervError]:
    for name, listed in manifest.files.items():
        if not _inside(folder, name):
            message = f"the manifest of '{folder}' names a file outside of it"
            yield IntervError("E279", message, notes=(f"it names {json.dumps(name)}",))
            continue
        path = folder / name
        if not path.is_file():
            helps = (f"put the file back, or delete its line from {MANIFEST}",)
            yield IntervError("E274", f"'{path}' is in the manifest and not there", helps=helps)
        elif (size := path.stat().st_size) != listed.bytes:
            message = f"'{path}' has {size} bytes, {listed.bytes} in the manifest"
            yield IntervError("E274", message, helps=("it was cut or replaced",))


def _inside(folder: Path, name: str) -> bool:
    """Say whether a name is one of the folder's own files, also behind links."""
    plain = name == Path(name).name and not name.startswith(".") and name.isprintable()
    if not (plain and name.endswith(SUFFIX)):
        return False
    return (folder / name).resolve().parent == folder.resolve()
