"""`manifest.jsonl`: a line for each file that was published, between the lines of its session.

A line is appended by one write, after its file has its name. So a process that is killed leaves a
manifest of complete files, and by the missing `closed` says that it did not end cleanly.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from interv.sinks.publish import sync_folder
from interv.sinks.schema import MANIFEST, Closed, Opened, Published, RecordLabels

if TYPE_CHECKING:
    from interv.sinks.container import Encoded

LONGEST_LINE = 64 * 1024 * 1024


class ManifestWriter:
    """One session of a sink in a folder; its lines are safe on disk where `fsync` is set."""

    def __init__(self, folder: Path, layout: str, *, fsync: bool) -> None:
        now = datetime.now(UTC)
        self.session = f"{now:%Y%m%dT%H%M%S}-{os.urandom(4).hex()}"
        self._fsync = fsync
        self._files = 0
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(folder / MANIFEST, flags, 0o666)
        # A line that a killed process left half written is ended, so that it spoils no other.
        self._torn = _ends_torn(self._file)
        when = now.isoformat(timespec="seconds")
        self._append(Opened(session=self.session, layout=layout, when=when))
        if fsync:
            sync_folder(folder)

    def add(self, file: Path, file_bytes: int, encoded: Encoded) -> None:
        """Say that a file is complete."""
        self._append(
            Published(
                session=self.session,
                file=file.name,
                bytes=file_bytes,
                records=encoded.records,
                tokens=dict(encoded.tokens),
            )
        )
        self._files += 1

    def close(self) -> None:
        """Say that the session ended cleanly."""
        try:
            self._append(Closed(session=self.session, files=self._files))
        finally:
            os.close(self._file)

    def _append(self, line: Opened | Published | Closed) -> None:
        text = json.dumps(line.model_dump(mode="json"), separators=(",", ":")).encode() + b"\n"
        data = b"\n" + text if self._torn else text
        self._torn = True
        if os.write(self._file, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False
        if self._fsync:
            os.fsync(self._file)


@dataclass(frozen=True, slots=True)
class Listed:
    """What the manifest says of one file."""

    bytes: int
    records: tuple[RecordLabels, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says: its files in the order of their lines, and what is not complete.

    Of a file that is listed twice, the last line counts. `wrong` are lines that mean nothing.
    """

    files: Mapping[str, Listed] = field(default_factory=dict)
    open: tuple[str, ...] = ()  # sessions without their last line
    wrong: tuple[int, ...] = ()


_LINE: TypeAdapter[Opened | Published | Closed] = TypeAdapter(Opened | Published | Closed)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; lines that are torn or mean nothing are counted, not trusted."""
    files: dict[str, Listed] = {}
    open_: dict[str, None] = {}
    wrong = []
    for number, text in _lines(path):
        try:
            line = _LINE.validate_json(text)
        except ValidationError:
            wrong.append(number)
            continue
        if isinstance(line, Published):
            files.pop(line.file, None)
            files[line.file] = Listed(line.bytes, line.records)
        elif isinstance(line, Opened):
            open_[line.session] = None
        else:
            open_.pop(line.session, None)
    return Manifest(files, tuple(open_), tuple(wrong))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number; of one that nobody writes so long, only its beginning."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE):
            number += 1
            if not line.endswith(b"\n") and len(line) == LONGEST_LINE:
                while (more := file.readline(LONGEST_LINE)) and not more.endswith(b"\n"):
                    pass
            if line.strip():
                yield number, line


def _ends_torn(file: int) -> bool:
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"
