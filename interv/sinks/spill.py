"""A folder on disk for records that wait for their sink, of a bounded size."""

from __future__ import annotations

import shutil
import tempfile
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from interv.sinks.record import Captured


@dataclass(frozen=True, slots=True)
class Spilled:
    """A record on disk: its file and the bytes that it takes."""

    path: Path
    bytes: int


class Spill:
    """Write records to a folder of their own, and read each back once."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = self._count = 0
        self._folder: Path | None = None
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Return the bytes of the records that are there now."""
        with self._lock:
            return self._bytes

    def write(self, captured: Captured) -> Spilled | None:
        """Write a record, or return None where there is no room; raises what the disk says.

        Room is counted in rows, beside which labels are small.
        """
        from interv.sinks.container import encode, write
        from interv.sinks.publish import write_part

        size = captured.bytes
        with self._lock:
            if self._bytes + size > self._most_bytes:
                return None
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="interv-spill-"))
            self._bytes += size
            self._count += 1
            name = f"{self._count:06d}"
        data = partial(write, encoded=encode(captured, exact=True))
        try:
            return Spilled(write_part(self._folder, name, data, fsync=False), size)
        except BaseException:
            self._free(size)
            raise

    def read(self, spilled: Spilled) -> Captured:
        """Return a record that was written; its file is gone afterwards."""
        from interv.sinks.reading import CaptureFile

        try:
            with CaptureFile(spilled.path) as file:
                return next(file.captured())
        finally:
            spilled.path.unlink(missing_ok=True)
            self._free(spilled.bytes)

    def close(self) -> None:
        """Remove the folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _free(self, size: int) -> None:
        with self._lock:
            self._bytes -= size
