"""The counts of edited rows, in a file that the processes of an engine map into memory.

On a CPU the kernels count in that memory itself; on another device they count in tensors of
their own, which are copied there behind each step. So reading the counts never asks the engine for
anything, and no step waits for them.

Dims: `N` sites, `P` programs, `R` seats of requests that asked for a report.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from interv.codegen.bundle import Bundle
from interv.codegen.tables import SiteCounts
from interv.runtime.config import SEATS
from interv.runtime.copies import Copies, Queue

# Counts that are no rows: slots in use, and requests that wait for one.
USED, HELD = 0, 1
# Records of captured rows by what became of them, and the rows that reached their sink.
RECORDS = {"ok": 2, "held": 3, "dropped": 4, "error": 5}
ROWS = 6
_HEAD = 8


class Counters:
    """The counts of one engine; every process that opens the file sees the same numbers."""

    def __init__(self, path: Path | None, bundle: Bundle, seats: int = SEATS) -> None:
        sites, programs = len(bundle.sites), len(bundle.counted)
        size = _HEAD + (1 + seats) * sites * programs
        if path is None:
            self._all = torch.zeros(size, dtype=torch.int64)
        else:
            _grow(path, 8 * size)
            self._all = torch.from_file(str(path), shared=True, size=size, dtype=torch.int64)
        self.head = self._all[:_HEAD]
        rest = self._all[_HEAD:].view(1 + seats, sites, programs)
        self.total, self.seats = rest[0], rest[1:]  # [N, P], [R, N, P]

    def rows(self, seat: int | None = None) -> npt.NDArray[np.int64]:
        """Return the rows edited so far `[N, P]`, of all requests or of the one in a seat."""
        found: npt.NDArray[np.int64] = (self.total if seat is None else self.seats[seat]).numpy()
        return found.copy()


def _grow(path: Path, size: int) -> None:
    """Make the file large enough; what another process wrote stays."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.fstat(handle).st_size < size:
            os.ftruncate(handle, size)
    finally:
        os.close(handle)


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


def report(rows: npt.NDArray[np.int64], bundle: Bundle) -> dict[str, dict[str, int]]:
    """Return counts `[N, P]` by program and site, those of zero left out."""
    found: dict[str, dict[str, int]] = {}
    for p, program in enumerate(bundle.counted):
        sites = {str(t.site): int(n) for t, n in zip(bundle.sites, rows[:, p], strict=True) if n}
        if sites:
            found[program] = sites
    return found


def counters_of(carried: Any, config: Any) -> Counters:
    """Open the counters of one engine of a configuration: each data-parallel rank has its own."""
    rank = config.parallel_config.data_parallel_rank
    return Counters(Path(f"{carried.counters}.{rank}"), carried.bundle, carried.seats)
