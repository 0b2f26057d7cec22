"""Records held until they are marked: the newest that fit, in shared memory."""

from __future__ import annotations

import errno
import shutil
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from interv.sinks.publish import write_part
from interv.sinks.record import Captured


@dataclass(frozen=True, slots=True)
class _Held:
    path: Path
    bytes: int


class Ring:
    """Hold records of at most `mib` MiB in files of `folder`, and hand out those that are marked.

    When there is no room the oldest are forgotten; `forgotten` counts them.
    """

    def __init__(self, folder: Path, mib: int) -> None:
        self._folder, self._most_bytes = folder, mib << 20
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._lock = threading.Lock()
        self._bytes = self._forgotten = self._count = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def forgotten(self) -> int:
        """Return how many records were never marked and are gone."""
        with self._lock:
            return self._forgotten

    @property
    def bytes(self) -> int:
        """Return the bytes of what is held."""
        with self._lock:
            return self._bytes

    def __len__(self) -> int:
        with self._lock:
            return len(self._held)

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return key in self._held

    def hold(self, key: str, captured: Captured) -> bool:
        """Hold a record until it is marked, and say whether it is held.

        One that is larger than the ring is forgotten at once, and so is an older one of `key`.
        Raises OSError where shared memory itself has no room, with nothing left to forget.
        """
        with self._lock:
            if key in self._held:
                self._forget(key)
            if captured.bytes > self._most_bytes:
                self._forgotten += 1
                return False
            while self._held and self._bytes + captured.bytes > self._most_bytes:
                self._forget(next(iter(self._held)))
            held = self._write(captured)
            self._held[key] = held
            self._bytes += held.bytes
            return True

    def mark(self, key: str) -> Captured | None:
        """Hand out the record of `key` and hold it no longer; None where it is not held."""
        from interv.sinks.reading import CaptureFile

        with self._lock:
            held = self._held.pop(key, None)
            if held is None:
                return None
            self._bytes -= held.bytes
        try:
            with CaptureFile(held.path) as file:
                return next(file.captured())
        finally:
            held.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Forget everything and remove the folder."""
        with self._lock:
            while self._held:
                self._forget(next(iter(self._held)))
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, captured: Captured) -> _Held:
        from interv.sinks.container import encode, write

        data = partial(write, encoded=encode(captured, exact=True))
        while True:
            self._count += 1
            try:
                part = write_part(self._folder, f"{self._count:08d}", data, fsync=False)
                return _Held(part, captured.bytes)
            except OSError as error:
                if error.errno != errno.ENOSPC or not self._held:
                    raise
                self._forget(next(iter(self._held)))

    def _forget(self, key: str) -> None:
        held = self._held.pop(key)
        held.path.unlink(missing_ok=True)
        self._bytes -= held.bytes
        self._forgotten += 1
