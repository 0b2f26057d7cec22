"""Copying captured rows: every form against float64, and nothing else is written."""

from __future__ import annotations

import pytest
import torch

from interv.codegen.kernels.registry import runnable
from interv.codegen.kernels.rows import StepRows, rows_form
from tests.tolerances import INTERPRETED_BFLOAT16

RUNNABLE = runnable(torch.device("cpu"))
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
forms = pytest.mark.parametrize("form", RUNNABLE)


def step_rows(wanted: torch.Tensor, most: int) -> StepRows:
    target = torch.full((most,), -1, dtype=torch.int32)
    place = torch.cumsum(wanted, 0, dtype=torch.int32) - 1
    target[: len(wanted)] = torch.where(wanted, place, -1)
    return StepRows(target, wanted.nonzero().flatten())


@forms
@pytest.mark.parametrize("pair", [None, "same", "float32"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [1, 7, 33])
@pytest.mark.parametrize("hidden_size", [63, 100, 1000, 1500])
def test_rows_are_the_stream_of_their_tokens(
    hidden_size: int, tokens: int, dtype: torch.dtype, pair: str | None, form: str
) -> None:
    torch.manual_seed(hidden_size + tokens)
    hidden = torch.randn(tokens, hidden_size).to(dtype)
    other = torch.float32 if pair == "float32" else dtype
    residual = None if pair is None else torch.randn(tokens, hidden_size).to(other)
    wanted = torch.rand(tokens) < 0.5
    stage = torch.full((40, hidden_size), float("nan"), dtype=dtype)
    before = hidden.clone()
    rows_form(form, step_rows(wanted, 40), stage)(hidden, residual)
    exact = hidden.float() if residual is None else hidden.float() + residual.float()
    count = int(wanted.sum())
    rounded = exact[wanted].to(dtype)
    if form == "triton" and dtype == torch.bfloat16 and pair:
        off = (stage[:count].double() - exact[wanted].double()).abs()
        assert (off <= INTERPRETED_BFLOAT16 * exact[wanted].double().abs()).all()
    else:
        assert torch.equal(stage[:count], rounded)
    assert stage[count:].isnan().all()
    assert torch.equal(hidden, before)


@forms
def test_a_cleared_step_copies_nothing(form: str) -> None:
    hidden, stage = torch.ones(4, 64), torch.full((8, 64), float("nan"))
    step = step_rows(torch.ones(4, dtype=torch.bool), 8)
    copy = rows_form(form, step, stage)
    step.clear()
    copy(hidden, hidden)
    assert stage.isnan().all()
    step = step_rows(torch.zeros(4, dtype=torch.bool), 8)
    rows_form(form, step, stage)(hidden, None)
    assert stage.isnan().all()
