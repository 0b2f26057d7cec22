"""Which blocks are blanked, what that writes, and which rows are not finite."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from interv.runtime.choice import Choice
from interv.runtime.kv.worker.layout import fill
from interv.runtime.scheduler.clean_blocks import Written
from interv.runtime.wire import NOT_FINITE
from interv.runtime.worker.finite import Finite

EDITS = Choice.of((("joy", 1.0),))


def test_a_block_is_blanked_when_it_is_given_out_after_an_edit() -> None:
    written = Written()
    written.give([1, 2], edits=True)
    written.give([3], edits=False)
    assert written.take([1, 2, 3]) == []
    written.give([2, 3], edits=False)
    assert written.take([2, 3, 2]) == [2]
    written.give([2], edits=True)
    written.give([1], edits=True)
    assert written.take([2, 1]) == [1]
    assert written.take([1, 2]) == [1, 2]
    assert written.take([1, 2]) == []


def test_a_block_that_is_not_noted_as_new_stays_to_be_blanked() -> None:
    written = Written()
    written.give([4], edits=True)
    written.take([4])
    written.give([4], edits=False)
    assert written.take([]) == []
    assert written.take([4]) == [4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("ratio", [1, 2])
def test_whole_blocks_become_zeros(dtype: torch.dtype, ratio: int) -> None:
    cache = torch.ones(6 * ratio, 2, 4, 8).to(dtype)
    fill(cache, 6, [1, 4])
    zeros = (cache.float() == 0).flatten(1).all(dim=1)
    ones = (cache.float() == 1).flatten(1).all(dim=1)
    expected = [b in (1, 4) for b in range(6) for _ in range(ratio)]
    assert zeros.tolist() == expected
    assert ones.tolist() == [not one for one in expected]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("late", [False, True])
def test_only_requests_with_an_edit_are_named_and_blanked(bad: float, late: bool) -> None:
    output = SimpleNamespace(req_id_to_index={})
    answer = SimpleNamespace(get_output=lambda: output) if late else output
    runner = SimpleNamespace(execute_model=lambda: None, sample_tokens=lambda: answer)
    finite = Finite(runner)
    states = torch.randn(9, 4)  # of which the last two are padding
    states[[1, 4, 8], [0, 3, 2]] = bad
    before = states.clone()
    choices = [Choice(), EDITS, EDITS]
    starts = np.array([0, 3, 6, 7])
    step = SimpleNamespace(choices=choices, starts=starts, ids=["a", "b", "c"])
    finite.look(step, (states, None))  # type: ignore[arg-type]
    assert runner.execute_model() is None
    told = runner.sample_tokens()
    assert getattr(told.get_output() if late else told, NOT_FINITE) == ["b"]
    before[4] = 0
    assert torch.equal(states.nan_to_num(7.0), before.nan_to_num(7.0))
