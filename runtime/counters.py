"""The counts of edited rows, in a file that the processes of an engine map into memory.

On a CPU the kernels count in that memory itself; on another device they count in tensors of
their own, which are copied there behind each step. So reading the counts never asks the engine for
anything, and no step waits for them.

Dims: `N` sites, `P` programs, `R` seats of requests that asked for a report.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from interv.codegen.bundle import Bundle
from interv.runtime.config import SEATS

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
