"""What compactions came to, in a file that the processes of an engine share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

COMPACTIONS, TOKENS, BLOCKS, BYTES = range(4)


class Tally:
    """Counts of one engine's compactions; every process that opens the file sees the same."""

    def __init__(self, path: Path | None, block_bytes: int = 0) -> None:
        """Open the counts at `path`, or none that are shared; a block has `block_bytes`."""
        self._block_bytes = block_bytes
        if path is None:
            self.counts = np.zeros(4, np.int64)
            return
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(handle, max(os.fstat(handle).st_size, 32))
        finally:
            os.close(handle)
        self.counts = np.memmap(path, np.int64, "r+", shape=(4,))

    def compaction(self, dropped: int, freed: int) -> None:
        """Count one compaction: tokens dropped, blocks given back."""
        self.counts += (1, dropped, freed, freed * self._block_bytes)


def tally_path(counters: str, rank: int | str) -> str:
    """Return where a data-parallel rank counts, beside the counts of edited rows."""
    # Not with a dot: the files that begin so hold edited rows.
    return f"{counters}-kv.{rank}"
