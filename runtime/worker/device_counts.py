"""The counts of one worker: its kernels count, and a copy of each step goes where others look."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from interv.codegen.tables import SiteCounts
from interv.runtime.counters import Counters
from interv.runtime.worker.device_copies import Copies, Queue


class DeviceCounts:
    """What the kernels of one worker count in, and how it reaches the shared counters.

    `sites` are those of the worker's own pipeline stage, all where it is not given: other stages
    count the others in the same shared memory. `queue` is that of a device with its own memory.
    """

    def __init__(
        self,
        counters: Counters,
        device: torch.device,
        sites: Sequence[int] | None = None,
        queue: Queue | None = None,
    ) -> None:
        self._shared = counters
        self._sites = torch.tensor(range(len(counters.total)) if sites is None else sites).long()
        if queue is None and device.type != "cpu":
            queue = Queue(device)
        self._copies = Copies(queue) if queue else None
        self.total, self.seats = counters.total, counters.seats
        if queue:
            self.total = torch.zeros_like(counters.total, device=device)
            self.seats = torch.zeros_like(counters.seats, device=device)

    def site(self, index: int) -> SiteCounts:
        """Return what one site counts in."""
        return SiteCounts(self.total[index], self.seats[:, index])

    def publish(self, seats: Collection[int] = ()) -> None:
        """Have the counts so far copied to where other processes see them, without a wait.

        `seats` are those of the step that was queued last: they are there before its result is.
        """
        if self._copies is None:
            return
        first, last = min(seats, default=0), max(seats, default=-1) + 1

        def land(copies: Sequence[torch.Tensor]) -> None:
            total, rows = copies
            self._shared.total[self._sites] = total[self._sites]
            self._shared.seats[first:last, self._sites] = rows[:, self._sites]

        self._copies.start((self.total, self.seats[first:last]), land, bool(seats))

    def settle(self, result: Any) -> Any:
        """Return what a runner gave, whose counts are published before anybody has read it.

        A result that is still on its way lands them when it is asked for: they were queued before
        it, so that costs no wait. One for another stage has nobody who waits for it here.
        """
        if self._copies is None or result is None:
            return result
        copies, last = self._copies, self._copies.last
        if not hasattr(result, "get_output"):
            copies.land(last)
            return result
        original = result.get_output

        def get_output() -> Any:
            found = original()
            copies.land(last)
            return found

        result.get_output = get_output
        return result

    def clear(self) -> None:
        """Forget what was counted so far: warm-up is no request."""
        if self._copies is not None:
            self._copies.land(self._copies.last)
            self.total.zero_()
            self.seats.zero_()
        self._shared.total[self._sites] = 0
        self._shared.seats[:, self._sites] = 0

    def take(self, seat: int) -> None:
        """Start a seat anew for another request, of which another stage may have counted rows."""
        if self._copies is not None:
            self.seats[seat].zero_()
        else:
            self.seats[seat, self._sites] = 0
