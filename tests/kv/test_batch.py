"""The batches of both runners: first points, and the blocks that a request is left with."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings, strategies as st

from interv.kv.settings import KvSettings
from interv.runtime.kv.worker.batch import NEVER, Batch, Batches, batches_of

SETTINGS = KvSettings("streaming", budget=18, buffer=10, window=4, own=(("sinks", 2),))
WIDTH, ROWS = 40, 5


def params(said: str | None = None) -> Any:
    return SimpleNamespace(extra_args={} if said is None else {"intervention_kv": said})


@dataclass
class Table:
    """The first runner's table of blocks, as far as it is asked."""

    rows: dict[int, list[int]] = field(default_factory=dict)

    def add_row(self, blocks: list[int], row: int) -> None:
        self.rows[row] = list(blocks)


class First:
    """Looks like the first runner."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.table, self.ended = Table(), 0
        self.requests: dict[str, Any] = {}
        self.input_batch = SimpleNamespace(
            num_reqs=0,
            req_ids=[],
            num_computed_tokens_cpu=np.zeros(ROWS, np.int32),
            block_table=[self.table],
        )

    def _update_states(self, output: Any) -> str:
        for new in output.scheduled_new_reqs:
            self.requests[new.req_id] = SimpleNamespace(
                num_prompt_tokens=new.prompt_len,
                sampling_params=new.sampling_params,
                block_ids=([*new.blocks],),
            )
        batch = self.input_batch
        batch.num_reqs, batch.req_ids = len(output.counts), list(output.counts)
        batch.num_computed_tokens_cpu[: len(output.counts)] = list(output.counts.values())
        return "updated"

    def _model_forward(self) -> str:
        return "run"

    def step(self, output: Any) -> None:
        assert self._update_states(output) == "updated"
        assert self._model_forward() == "run"

    def blocks(self, row: int) -> list[int]:
        assert self.requests[self.input_batch.req_ids[row]].block_ids[0] == self.table.rows[row]
        return self.table.rows[row]


class Second:
    """Looks like the second runner; a request has another index than row."""

    device = torch.device("cpu")
    max_num_reqs = ROWS

    def __init__(self) -> None:
        self.req_states: Any = SimpleNamespace(req_id_to_index={})
        counts = torch.zeros(1, ROWS, dtype=torch.int32)
        self.block_tables = SimpleNamespace(
            block_tables=[SimpleNamespace(gpu=torch.zeros(ROWS, WIDTH, dtype=torch.int32))],
            num_blocks=SimpleNamespace(np=counts.numpy().copy(), gpu=counts),
        )

    def add_requests(self, output: Any) -> None:
        for new in output.scheduled_new_reqs:
            index = ROWS - 1 - len(self.req_states.req_id_to_index)
            self.req_states.req_id_to_index[new.req_id] = index
            line, count = self.block_tables.block_tables[0].gpu[index], len(new.blocks)
            line[:count] = torch.tensor(new.blocks)
            self.block_tables.num_blocks.np[0, index] = count
            self.block_tables.num_blocks.gpu[0, index] = count

    def prepare_inputs(self, output: Any) -> Any:
        index = [self.req_states.req_id_to_index[name] for name in output.counts]
        # Padded, as for a captured graph.
        counts = np.array([*output.counts.values(), 0], np.int32)
        self.batch = SimpleNamespace(
            num_reqs=len(index),
            req_ids=list(output.counts),
            idx_mapping_np=np.array(index, np.intp),
            num_computed_tokens_np=counts,
        )
        return self.batch

    def execute_model(self, output: Any) -> None:
        self.add_requests(output)
        assert self.prepare_inputs(output) is self.batch

    def step(self, output: Any) -> None:
        self.execute_model(output)

    def blocks(self, row: int) -> list[int]:
        index, tables = self.batch.idx_mapping_np[row], self.block_tables
        count = int(tables.num_blocks.np[0, index])
        assert int(tables.num_blocks.gpu[0, index]) == count
        found: list[int] = tables.block_tables[0].gpu[index, :count].tolist()
        return found


def output(counts: dict[str, int], *new: Any, preempted: set[str] | None = None) -> Any:
    return SimpleNamespace(counts=counts, scheduled_new_reqs=list(new), preempted_req_ids=preempted)


def new(name: str, length: int, blocks: Any = (), said: str | None = None) -> Any:
    return SimpleNamespace(
        req_id=name, prompt_len=length, blocks=list(blocks), sampling_params=params(said)
    )


def hooked(runner: Any) -> tuple[Batches, list[Batch | None]]:
    seen: list[Batch | None] = []
    batches = batches_of(runner, SETTINGS)
    batches.hook(seen.append, lambda: seen.append(None))
    return batches, seen


def test_both_runners_tell_the_same_of_a_step() -> None:
    """A prompt beyond the limit, one that says off, and an id that comes again."""
    told = []
    for runner in (First(), Second()):
        _, seen = hooked(runner)
        runner.step(output({"b": 0, "a": 0}, new("a", 5), new("b", 40)))
        runner.step(output({"a": 5, "b": 40, "c": 0}, new("c", 7, said="off")))
        runner.req_states = SimpleNamespace(req_id_to_index={})
        runner.step(output({"a": 3}, new("a", 60)))
        assert seen[1::2] == [None] * 3
        steps = [one for one in seen if one is not None]
        assert all("a" in one.present for one in steps)
        told.append([(list(b.ids), b.counts.tolist(), b.first.tolist()) for b in steps])
    first = [
        (["b", "a"], [0, 0], [40, 28]),
        (["a", "b", "c"], [5, 40, 0], [28, 40, NEVER]),
        (["a"], [3], [60]),
    ]
    assert told == [first, first]


def test_a_preempted_request_is_not_there_until_it_is_back() -> None:
    """The first runner knows it all the while, and of one that only waits for its turn as well."""
    runner = First()
    _, seen = hooked(runner)
    runner.step(output({"a": 0, "b": 0, "c": 0}, new("a", 5), new("b", 5), new("c", 5)))
    runner.step(output({"a": 5}, preempted={"b"}))
    runner.step(output({"a": 6}, preempted=set()))
    runner.step(output({"a": 7, "b": 0}))
    found = [[name in one.present for name in "abc"] for one in seen if one is not None]
    gone = [True, False, True]
    assert found == [[True] * 3, gone, gone, [True] * 3]


@settings(deadline=None)
@given(st.data())
def test_both_runners_cut_the_same_blocks(data: st.DataObject) -> None:
    """What remains are the first `stay` blocks, and those behind `held`."""
    held = data.draw(st.integers(1, 20))
    stay = data.draw(st.sampled_from([0, data.draw(st.integers(1, held))]))
    # The first time it is given all that it packs into.
    given_now = data.draw(st.integers(0 if stay else 1, WIDTH - held))
    packed = data.draw(st.integers(1, stay + given_now)) if stay else given_now
    blocks = data.draw(st.permutations(range(held + given_now)))
    for runner in (First(), Second()):
        batches, _ = hooked(runner)
        other = new("other", 9, [77, 78])
        runner.step(output({"other": 0, "it": 0}, other, new("it", 9, blocks)))
        before, after = batches.cut(1, held, stay, packed)
        left = [*blocks[:stay], *blocks[held:]]
        assert before.tolist() == blocks[:held]
        assert runner.blocks(1) == left
        assert after.tolist() == left[:packed]
        assert before.dtype == after.dtype == torch.int64
        if isinstance(runner, Second):
            assert runner.blocks(0) == [77, 78]
