"""A queue of records, bounded in bytes, and what happens when it is full."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from interv.sinks.journal import read_record
from interv.sinks.record import Captured
from interv.sinks.spill import Spill, Spilled


@dataclass(slots=True, eq=False)
class Waiting:
    """One record on its way: in memory, in a journal or on disk, or already handed over."""

    key: str
    request: str
    bytes: int
    captured: Captured | None
    spilled: Spilled | None = None
    kept: Path | None = None  # its file in the journal

    def rows(self) -> Captured:
        """Return the record where it is not on disk."""
        if self.captured is None:
            assert self.kept is not None
            return read_record(self.kept)
        return self.captured

    def leave_journal(self) -> None:
        """Remove the record's file in the journal."""
        if self.kept is not None:
            self.kept.unlink(missing_ok=True)
            self.kept = None


class Queue:
    """First in, first out; `put` may be called by several threads, `get` by one.

    A record counts from `put` until `done`, so that one in the sink's hands counts too. One that is
    larger than the whole queue is taken when nothing else is there.
    """

    def __init__(
        self, most_bytes: int, overflow: Literal["block", "drop", "spill"], spill: Spill
    ) -> None:
        self._most_bytes, self._overflow, self._spill = most_bytes, overflow, spill
        self._change = threading.Condition()
        # Those who put take turns, so that the order of the queue is theirs also while one spills.
        self._turn = threading.Lock()
        self._waiting: deque[Waiting] = deque()
        self._bytes = self._in_hand = self._freed = self._taken = 0
        self._closed = self._woken = False

    @property
    def bytes(self) -> int:
        """Return the bytes of rows that are kept in memory."""
        with self._change:
            return self._bytes

    @property
    def taken(self) -> int:
        """Return how many records were ever taken."""
        with self._change:
            return self._taken

    @property
    def given(self) -> int:
        """Return how many records were ever given out by `get`."""
        with self._change:
            return self._taken - len(self._waiting)

    def put(self, one: Waiting) -> Literal["taken", "full", "closed"]:
        """Take a record: at once, when there is room, or not at all."""
        with self._turn:
            while True:
                with self._change:
                    if self._closed:
                        return "closed"
                    if self._fits(one):
                        self._bytes += one.bytes
                        return self._append(one)
                    freed = self._freed
                if self._overflow == "drop":
                    return "full"
                if self._overflow == "spill" and self._to_disk(one):
                    with self._change:
                        return "closed" if self._closed else self._append(one)
                self._wait_for_room(freed)

    def get(self, seconds: float | None) -> Waiting | None:
        """Return the next record; None after `seconds`, when woken, or closed and empty."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closed or self._woken, seconds)
            if not self._waiting:
                self._woken = False
                return None
            self._in_hand += 1
            return self._waiting.popleft()

    def done(self, one: Waiting) -> None:
        """Say that a record is no longer in memory or on disk: the sink is through with it."""
        with self._change:
            self._in_hand -= 1
            self._freed += 1
            if one.spilled is None:
                self._bytes -= one.bytes
            self._change.notify_all()

    def wake(self) -> None:
        """Let `get` return when nothing is there any more."""
        with self._change:
            self._woken = True
            self._change.notify_all()

    def close(self) -> None:
        """Take nothing more; what is there can still be had."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    @property
    def ended(self) -> bool:
        """Say whether the queue is closed and empty."""
        with self._change:
            return self._closed and not self._waiting

    def _wait_for_room(self, freed: int) -> None:
        with self._change:
            self._change.wait_for(lambda: self._closed or self._freed != freed)

    def _fits(self, one: Waiting) -> bool:
        alone = not self._waiting and not self._in_hand
        return alone or self._bytes + one.bytes <= self._most_bytes

    def _append(self, one: Waiting) -> Literal["taken"]:
        self._waiting.append(one)
        self._taken += 1
        self._change.notify_all()
        return "taken"

    def _to_disk(self, one: Waiting) -> bool:
        one.spilled = self._spill.write(one.rows())
        if one.spilled is not None:
            one.captured = None
            one.leave_journal()
        return one.spilled is not None
