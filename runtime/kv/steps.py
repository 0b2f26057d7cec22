"""One forward pass under a KV policy: what was dropped of each request of the batch.

Dims: `R` requests of the batch, `T` tokens of the forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from interv.kv import schedule
from interv.kv.settings import KvSettings
from interv.runtime.kv.asked import is_compressed
from interv.runtime.kv.ring import Ring

# The first compaction of a request that is never compacted.
_NEVER = 1 << 60


class Steps:
    """What the compacted requests of each step look like to attention.

    Nothing is kept from one step to the next but the order of the batch: how much of a request is
    dropped follows from the length of its prompt and its token count.
    """

    def __init__(self, settings: KvSettings, ring: Ring | None) -> None:
        self._settings, self._ring = settings, ring
        self._ids: list[str] = []
        self._first: npt.NDArray[np.int64] = np.zeros(0, np.int64)  # [R]
        self._counts: npt.NDArray[np.int64] | None = None  # [R], None between steps
        self._dropped: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.block_size = 0  # tokens a block, known once the cache is there

    def begin(
        self,
        ids: Sequence[str],
        counts: npt.NDArray[Any],
        requests: Mapping[str, Any],
        changed: bool,
    ) -> list[int]:
        """Take in the batch of a step; return the rows of requests that are compacted first.

        `counts` are the computed tokens `[R]`; `requests` are the runner's by id; `changed` says
        that an id may stand for another request than before.
        """
        if changed or ids != self._ids:
            self._ids = list(ids)
            self._first = self._first_points([requests[one] for one in ids])
            if self._ring is not None:
                self._ring.keep_only(requests)
        self._counts = counts.astype(np.int64)
        self._dropped = schedule.dropped(self._settings, self._first, self._counts)
        due = schedule.at_point(self._settings, self._first, self._counts)
        rows: list[int] = due.nonzero()[0].tolist()
        return rows

    def _first_points(self, states: Sequence[Any]) -> npt.NDArray[np.int64]:
        prompts = np.array([one.num_prompt_tokens for one in states], np.int64)
        on = [is_compressed(one.sampling_params, self._settings) for one in states]
        return np.where(on, schedule.first_points(self._settings, prompts), _NEVER)

    def is_first(self, row: int) -> bool:
        """Say whether the compaction of a row in this step is its request's first."""
        assert self._counts is not None
        return bool(self._counts[row] == self._first[row])

    def held(self, row: int) -> int:
        """Return how many tokens the cache holds of a row that is about to be compacted."""
        assert self._counts is not None
        count = int(self._counts[row])
        return count if self.is_first(row) else self._settings.limit

    def end(self) -> None:
        """Forget the step: what is run until the next one is no request."""
        self._counts = None
        if self._ring is not None:
            self._ring.end()

    def shortened(self, common: Any) -> Any:
        """Return a step's metadata with the compacted requests' lengths, and mend their slots.

        The slots are changed in place, since the op that writes the cache reads the same memory.
        """
        if self._counts is None:
            return common
        starts = common.query_start_loc_cpu.numpy()[: len(self._ids) + 1].astype(np.int64)
        self._announce(starts)
        if not self._dropped.any():
            return common
        self._mend_slots(common, starts)
        lengths = common.seq_lens.clone()
        gone = torch.from_numpy(self._dropped).to(lengths.dtype)
        lengths[: len(gone)] -= gone
        return replace(common, seq_lens=lengths, max_seq_len=int(lengths.max()))

    def _mend_slots(self, common: Any, starts: npt.NDArray[np.int64]) -> None:
        tokens = int(starts[-1])
        row = torch.from_numpy(np.repeat(np.arange(len(self._ids)), np.diff(starts)))
        place = common.positions[:tokens] - torch.from_numpy(self._dropped)[row]
        blocks = common.block_table_tensor[row, place // self.block_size].long()
        common.slot_mapping[:tokens] = blocks * self.block_size + place % self.block_size

    def _announce(self, starts: npt.NDArray[np.int64]) -> None:
        """Tell the ring which of the step's tokens lie within a window of a compaction."""
        if self._ring is None:
            return
        assert self._counts is not None
        before, new = self._counts, np.diff(starts)
        point = schedule.next_points(self._settings, self._first, before)
        low = np.maximum(before, point - self._ring.window)
        near = (before + new > low).nonzero()[0]
        if not len(near):
            return
        seats = np.array([self._ring.seat(self._ids[row]) for row in near.tolist()])
        each = (before + new - low)[near]
        within = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
        positions = np.repeat(low[near], each) + within
        source = np.repeat(starts[near] - before[near], each) + positions
        target = np.repeat(seats, each) * self._ring.window + positions % self._ring.window
        self._ring.begin(torch.from_numpy(source), torch.from_numpy(target))
