"""A folder in shared memory where rows wait for whoever asks for them by handle.

What is there is told by the folder alone, so that any process of its owner can read, list and
forget; expiry is up to the one process that writes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from interv.errors import IntervError
from interv.sinks.publish import publish, slug, write_part
from interv.sinks.record import Captured
from interv.sinks.schema import SUFFIX

SHARED = Path("/dev/shm")
# A handle that is forgotten gets such a name first, so that nobody reads half of it.
GONE = ".gone-"


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of the spool and its bytes."""

    path: Path
    bytes: int


@dataclass(frozen=True, slots=True)
class Handle:
    """What is known of a handle without opening its files; `name` is that of its folder."""

    name: str
    files: int
    bytes: int
    age_s: float


def shared_folder(prefix: str = "interv-") -> Path:
    """Make an empty folder of mode 0700 in shared memory, or among temporary files."""
    place = SHARED if SHARED.is_dir() and os.access(SHARED, os.W_OK | os.X_OK) else None
    return Path(tempfile.mkdtemp(prefix=prefix, dir=place))


class Spool:
    """Files of captured rows by handle, each for `ttl_s` seconds, of at most `most_bytes` in all.

    `expired` and `evicted` count handles that were removed for their age and for want of room.
    """

    def __init__(
        self, folder: Path, ttl_s: float = 600.0, most_bytes: int = 1024 * 1024 * 1024
    ) -> None:
        self.folder = folder
        self.expired = self.evicted = 0
        self._ttl_s, self._most_bytes = ttl_s, most_bytes
        self._lock = threading.Lock()
        self._count = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, handle: str, captured: Captured) -> Stored:
        """Add a record to a handle; the oldest handles make room for it.

        Raises E556 for a handle that is larger than the whole spool.
        """
        from interv.sinks.container import encode, write

        name = slug(handle)
        place = self.folder / name
        with self._lock:
            self._expire()
            self._make_room(name, captured.bytes)
            place.mkdir(mode=0o700, exist_ok=True)
            # The count goes on over all handles, so that their files sort as they came.
            self._count += 1
            stem = f"{self._count:08d}"
            part = write_part(place, stem, partial(write, encoded=encode(captured)), fsync=False)
            size = part.stat().st_size
            return Stored(publish(part, stem, "suffix"), size)

    def read(self, handle: str) -> tuple[Captured, ...]:
        """Return the records of a handle, in the order they came; their rows are not copied.

        Raises E555 for a handle that is not there: unknown, forgotten or expired.
        """
        from interv.sinks.reading import CaptureFile

        records: list[Captured] = []
        for path in self.files(handle):
            with CaptureFile(path) as file:
                records += file.captured()
        return tuple(records)

    def files(self, handle: str) -> tuple[Path, ...]:
        """Return the files of a handle, in the order they came; raises E555."""
        place = self.folder / slug(handle)
        files: list[Path] = []
        with contextlib.suppress(FileNotFoundError):
            if self._age(place) <= self._ttl_s:
                files = sorted(place.glob(f"*{SUFFIX}"))
        if not files:
            note = f"rows are kept for {self._ttl_s:g} s, the oldest go first when room is short"
            message = f"nothing captured is kept under '{handle}'"
            raise IntervError("E555", message, notes=(note,))
        return tuple(files)

    def list(self) -> tuple[Handle, ...]:
        """Return what is there, the oldest first."""
        found = []
        for place in self._places():
            # Another process may forget a handle at any time.
            with contextlib.suppress(FileNotFoundError):
                sizes = [path.stat().st_size for path in place.glob(f"*{SUFFIX}")]
                found.append(Handle(place.name, len(sizes), sum(sizes), self._age(place)))
        return tuple(sorted(found, key=lambda one: -one.age_s))

    def forget(self, handle: str) -> bool:
        """Remove a handle, and say whether it was there."""
        return self._remove(self.folder / slug(handle))

    def expire(self) -> None:
        """Remove every handle that is older than the spool keeps them."""
        with self._lock:
            self._expire()

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _places(self) -> Iterator[Path]:
        for place in self.folder.iterdir():
            if place.is_dir() and not place.name.startswith("."):
                yield place

    def _expire(self) -> None:
        for one in self.list():
            if one.age_s > self._ttl_s:
                self.expired += self._remove(self.folder / one.name)

    def _make_room(self, name: str, size: int) -> None:
        handles = self.list()
        own = sum(one.bytes for one in handles if one.name == name)
        if own + size > self._most_bytes:
            message = f"what is captured takes {own + size} bytes, the spool holds less"
            helps = ("give the sink more: memory(mib = …), or capture fewer rows",)
            raise IntervError("E556", message, notes=(f"it holds {self._most_bytes}",), helps=helps)
        used = sum(one.bytes for one in handles)
        for one in handles:
            if used + size <= self._most_bytes:
                return
            if one.name != name and self._remove(self.folder / one.name):
                self.evicted += 1
                used -= one.bytes

    def _age(self, place: Path) -> float:
        # A folder's time is that of the last file that came into it.
        return time.time() - place.stat().st_mtime

    def _remove(self, place: Path) -> bool:
        gone = self.folder / f"{GONE}{os.urandom(8).hex()}"
        try:
            place.rename(gone)
        except FileNotFoundError:
            return False
        shutil.rmtree(gone, ignore_errors=True)
        return True
