"""Copies of a device's tensors on their way to the host: asked for in order, waited for by nobody.

A copy is queued behind the work that the device has been given, so what lands is what the tensors
held there. Whoever waits for something that was queued later finds it ready.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


class Event(Protocol):
    """A place in a device's queue."""

    def query(self) -> bool:
        """Say whether the device has come here."""

    def synchronize(self) -> None:
        """Wait until it has."""


class Queue:
    """The device's current queue of work."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def copy(self, source: torch.Tensor) -> torch.Tensor:
        """Return memory of the host that will hold what `source` holds when its turn comes."""
        target = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
        return target.copy_(source, non_blocking=True)

    def event(self) -> Event:
        """Mark the end of the queue."""
        event = torch.Event(self._device)
        event.record()
        return event


@dataclass(frozen=True, slots=True)
class _Copy:
    number: int
    event: Event
    asked: bool
    land: Callable[[], None]


class Copies:
    """The copies that have not landed; any thread may land them, and they do so in order."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._pending: deque[_Copy] = deque()
        self._lock = threading.Lock()
        self.last = 0  # the number of the last copy that was asked for

    def start(
        self,
        sources: Sequence[torch.Tensor],
        land: Callable[[Sequence[torch.Tensor]], None],
        asked: bool,
    ) -> None:
        """Queue copies of `sources`; `land` gets them. One that was `asked` for is waited for."""
        copies = [self._queue.copy(source) for source in sources]
        event = self._queue.event()
        with self._lock:
            self.last += 1
            self._pending.append(_Copy(self.last, event, asked, lambda: land(copies)))

    def land(self, last: int) -> None:
        """Land the copies up to a number, but leave those that nobody asked for until ready."""
        with self._lock:
            asked = (one.number for one in self._pending if one.asked and one.number <= last)
            needed = max(asked, default=0)
            while self._pending and self._pending[0].number <= last:
                first = self._pending[0]
                if first.number > needed and not first.event.query():
                    return
                first.event.synchronize()
                first.land()
                self._pending.popleft()
