"""A folder on disk for records that wait for their sink, of a bounded size."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from interv.sinks.journal import About, Journal, read_record
from interv.sinks.owner import Hold, new_name, temporary
from interv.sinks.record import Captured


@dataclass(frozen=True, slots=True)
class Spilled:
    """A record on disk: its file and the bytes that it takes."""

    path: Path
    bytes: int


class Spill:
    """Write records to a folder of their own, where each stays until it is removed.

    The folder is a journal of the sink that `about` describes, so that a killed process loses none.
    """

    def __init__(self, most_bytes: int, about: About | None = None) -> None:
        self._most_bytes, self._about = most_bytes, about
        self._bytes = 0
        self._hold: Hold | None = None
        self._journal: Journal | None = None
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
        size = captured.bytes
        with self._lock:
            if self._bytes + size > self._most_bytes:
                return None
            journal = self._opened()
            self._bytes += size
        try:
            return Spilled(journal.write(captured), size)
        except BaseException:
            self._free(size)
            raise

    def read(self, spilled: Spilled) -> Captured:
        """Return a record that was written."""
        return read_record(spilled.path)

    def remove(self, spilled: Spilled) -> None:
        """Forget a record; its rows that were read stay."""
        spilled.path.unlink(missing_ok=True)
        self._free(spilled.bytes)

    def close(self) -> None:
        """Remove the folder."""
        if self._hold is not None:
            self._hold.release()

    def _opened(self) -> Journal:
        if self._journal is None:
            place, name = temporary(), new_name()
            self._hold = Hold(place, name)
            self._journal = Journal(place / f"{name}.spill", self._about)
        return self._journal

    def _free(self, size: int) -> None:
        with self._lock:
            self._bytes -= size
