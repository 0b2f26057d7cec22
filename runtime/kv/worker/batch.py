"""The requests of a step and their blocks, as each of vLLM's runners keeps them.

Dims: `R` requests of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from interv.kv.schedule import Schedule
from interv.kv.settings import KvSettings
from interv.runtime import compat
from interv.runtime.kv.asked import is_compressed
from interv.runtime.wrap import wrap

# The first compaction of a request that is never compacted.
NEVER = 1 << 60


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The requests of one forward pass, in the order of its tokens."""

    ids: Sequence[str]  # [R]
    counts: npt.NDArray[np.int64]  # [R], tokens that were computed before it
    first: npt.NDArray[np.int64]  # [R], the first compaction point, NEVER where there is none
    present: Container[str]  # every request that is running, in this pass or not


class Batches(Protocol):
    """What a KV policy needs of a runner."""

    def hook(self, begin: Callable[[Batch], None], end: Callable[[], None]) -> None:
        """Call `begin` before each forward pass of requests, when their blocks are known.

        And `end` behind it. Passes of no request, as for warm-up, are not announced.
        """

    def cut(self, row: int, held: int, stay: int, packed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Take blocks from a request that the scheduler has taken already; return two lists.

        Of the `held` blocks that request `row` had before this step the first `stay` remain, and
        those that it was given in this step follow. Returned are the numbers of the blocks that it
        had, and of the first `packed` that it has now, int64 on the device of the cache.
        """


def batches_of(runner: compat.Runner, settings: KvSettings) -> Batches:
    """Return the batches of a runner."""
    kind = SecondBatches if compat.is_v2(runner) else FirstBatches
    return kind(runner, settings)


def sent(values: npt.NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """Return values of the host on a device, without waiting for it."""
    host = torch.from_numpy(values)
    return host if device.type == "cpu" else host.pin_memory().to(device, non_blocking=True)


def _first_point(settings: KvSettings, prompt_length: int, params: Any) -> int:
    on = is_compressed(params, settings)
    return Schedule.of(settings, prompt_length).first if on else NEVER


class FirstBatches:
    """The batches of vLLM's first runner, which keeps tables of blocks on the host."""

    HOOKS = ("_update_states", "_model_forward")

    def __init__(self, runner: compat.Runner, settings: KvSettings) -> None:
        self._runner, self._settings = runner, settings
        self._ids: list[str] = []
        self._first: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._preempted: set[str] = set()

    def hook(self, begin: Callable[[Batch], None], end: Callable[[], None]) -> None:
        """Call `begin` when the batch is settled and `end` behind the model."""

        def update(original: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(scheduler_output, *args, **kwargs)
            self._preempted |= scheduler_output.preempted_req_ids or set()
            if self._runner.input_batch.num_reqs:
                begin(self._batch(bool(scheduler_output.scheduled_new_reqs)))
            return result

        def forward(original: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return original(*args, **kwargs)
            finally:
                end()

        wrap(self._runner, "_update_states", update)
        wrap(self._runner, "_model_forward", forward)

    def _batch(self, changed: bool) -> Batch:
        """Return the batch; `changed` says that an id may stand for another request than before."""
        batch, requests = self._runner.input_batch, self._runner.requests
        ids = batch.req_ids[: batch.num_reqs]
        if changed or ids != self._ids:
            self._ids = list(ids)
            states = [requests[one] for one in ids]
            first = [
                _first_point(self._settings, one.num_prompt_tokens, one.sampling_params)
                for one in states
            ]
            self._first = np.array(first, np.int64)
        counts = batch.num_computed_tokens_cpu[: batch.num_reqs].astype(np.int64)
        # The runner keeps what it knows of a request until its end.
        self._preempted.difference_update(ids)
        self._preempted.intersection_update(requests)
        running = requests.keys() - self._preempted if self._preempted else requests
        return Batch(self._ids, counts, self._first, running)

    def cut(self, row: int, held: int, stay: int, packed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cut the request's list of blocks; its row of the table is sent before the model runs."""
        batch, device = self._runner.input_batch, self._runner.device
        blocks = self._runner.requests[batch.req_ids[row]].block_ids[0]
        before = np.array(blocks[:held], np.int64)
        del blocks[stay:held]
        batch.block_table[0].add_row(blocks, row)
        return sent(before, device), sent(np.array(blocks[:packed], np.int64), device)


class SecondBatches:
    """The batches of vLLM's second runner, which keeps tables of blocks on the device alone."""

    HOOKS = ("add_requests", "prepare_inputs", "execute_model")

    def __init__(self, runner: compat.Runner, settings: KvSettings) -> None:
        self._runner, self._settings = runner, settings
        # By the runner's own index of a request: it forgets its sampling parameters.
        self._first = np.full(runner.max_num_reqs, NEVER, np.int64)
        self._rows: npt.NDArray[np.intp] = np.zeros(0, np.intp)  # [R], that index

    def hook(self, begin: Callable[[Batch], None], end: Callable[[], None]) -> None:
        """Call `begin` when the batch is settled and `end` behind the model."""

        def add(original: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(scheduler_output, *args, **kwargs)
            index = self._runner.req_states.req_id_to_index
            for new in scheduler_output.scheduled_new_reqs:
                first = _first_point(self._settings, compat.prompt_length(new), new.sampling_params)
                self._first[index[new.req_id]] = first
            return result

        def prepare(original: Any, *args: Any, **kwargs: Any) -> Any:
            batch = original(*args, **kwargs)
            begin(self._batch(batch))
            return batch

        def execute(original: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return original(*args, **kwargs)
            finally:
                end()

        wrap(self._runner, "add_requests", add)
        wrap(self._runner, "prepare_inputs", prepare)
        wrap(self._runner, "execute_model", execute)

    def _batch(self, batch: Any) -> Batch:
        self._rows = batch.idx_mapping_np[: batch.num_reqs]
        counts = batch.num_computed_tokens_np[: batch.num_reqs].astype(np.int64)
        known = self._runner.req_states.req_id_to_index
        return Batch(batch.req_ids, counts, self._first[self._rows], known)

    def cut(self, row: int, held: int, stay: int, packed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cut the request's row of the table on the device, where its blocks are known."""
        tables, index = self._runner.block_tables, int(self._rows[row])
        line = tables.block_tables[0].gpu[index]
        before = line[:held].long()
        total = int(tables.num_blocks.np[0, index])
        left = total - (held - stay)
        line[stay:left] = line[held:total].clone()
        # The host's count is what blocks are appended behind; the device's is of this step already.
        tables.num_blocks.np[0, index] = left
        tables.num_blocks.gpu[0, index] = left
        return before, line[:packed].long()
