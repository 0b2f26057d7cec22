"""One forward pass under a KV policy: what was dropped of each request of the batch.

Dims: `R` requests of the batch, `T` tokens of the forward pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from interv.kv import schedule
from interv.kv.settings import KvSettings
from interv.runtime import compat
from interv.runtime.kv.worker.batch import Batch, sent
from interv.runtime.kv.worker.ring import Ring

_NOBODY = Batch((), np.zeros(0, np.int64), np.zeros(0, np.int64), ())


class Steps:
    """What the compacted requests of each step look like to attention.

    Nothing is kept from one step to the next: how much of a request is dropped follows from the
    length of its prompt and its token count. All of that is known on the host, so the device is
    never waited for.
    """

    def __init__(self, settings: KvSettings, ring: Ring | None, device: torch.device) -> None:
        self._settings, self._ring, self._device = settings, ring, device
        self._batch = _NOBODY
        self._dropped: npt.NDArray[np.int64] = np.zeros(0, np.int64)  # [R]
        self.block_size = 0  # tokens a block, known once the cache is there

    def begin(self, batch: Batch) -> list[int]:
        """Take in the batch of a step; return the rows of requests that are compacted first."""
        self._batch = batch
        if self._ring is not None:
            self._ring.keep_only(batch.present)
        self._dropped = schedule.dropped(self._settings, batch.first, batch.counts)
        due = schedule.at_point(self._settings, batch.first, batch.counts)
        rows: list[int] = due.nonzero()[0].tolist()
        return rows

    def is_first(self, row: int) -> bool:
        """Say whether the compaction of a row in this step is its request's first."""
        return bool(self._batch.counts[row] == self._batch.first[row])

    def held(self, row: int) -> int:
        """Return how many tokens the cache holds of a row that is about to be compacted."""
        return int(self._batch.counts[row]) if self.is_first(row) else self._settings.limit

    def end(self) -> None:
        """Forget the step: what is run until the next one is no request."""
        self._batch = _NOBODY
        if self._ring is not None:
            self._ring.end()

    def shortened(self, common: Any, lengths: torch.Tensor | None = None) -> Any:
        """Return a step's metadata with the compacted requests' lengths, and mend their slots.

        The slots are changed in place, since the op that writes the cache reads the same memory.
        The lengths are not: a runner compares its own with the lengths of prompts. They go to
        `lengths` where that is given: a captured graph reads them there, in every pass.
        """
        if lengths is not None:
            lengths = lengths[: len(common.seq_lens)].copy_(common.seq_lens)
            common = compat.with_lengths(common, seq_lens=lengths)
        count = len(self._batch.ids)
        if not count:
            return common
        starts = common.query_start_loc_cpu.numpy()[: count + 1].astype(np.int64)
        self._announce(starts)
        if not self._dropped.any():
            return common
        self._mend_slots(common, starts)
        if lengths is None:
            lengths = common.seq_lens.clone()
        bound = common.seq_lens_cpu_upper_bound
        lengths[:count] -= sent(self._dropped, self._device).to(lengths.dtype)
        if bound is not None:
            bound = bound.clone()
            bound[:count] -= torch.from_numpy(self._dropped).to(bound.dtype)
        longest = int((self._batch.counts + np.diff(starts) - self._dropped).max())
        return compat.with_lengths(
            common, seq_lens=lengths, max_seq_len=longest, seq_lens_cpu_upper_bound=bound
        )

    def _mend_slots(self, common: Any, starts: npt.NDArray[np.int64]) -> None:
        tokens, new = int(starts[-1]), np.diff(starts)
        rows = np.arange(len(self._dropped))
        both = np.stack([np.repeat(one, new) for one in (rows, self._dropped)])
        row, gone = sent(both, self._device)
        place = common.positions[:tokens] - gone
        blocks = common.block_table_tensor[row, place // self.block_size].long()
        common.slot_mapping[:tokens] = blocks * self.block_size + place % self.block_size

    def _announce(self, starts: npt.NDArray[np.int64]) -> None:
        """Tell the ring which of the step's tokens lie within a window of a compaction."""
        if self._ring is None:
            return
        before, new = self._batch.counts, np.diff(starts)
        point = schedule.next_points(self._settings, self._batch.first, before)
        low = np.maximum(before, point - self._ring.window)
        near = (before + new > low).nonzero()[0]
        if not len(near):
            return
        seats = np.array([self._ring.seat(self._batch.ids[row]) for row in near.tolist()])
        each = (before + new - low)[near]
        within = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
        positions = np.repeat(low[near], each) + within
        source = np.repeat(starts[near] - before[near], each) + positions
        target = np.repeat(seats, each) * self._ring.window + positions % self._ring.window
        both = sent(np.stack([source, target]), self._device)
        self._ring.begin(both[0], both[1], tokens=int(starts[-1]))
