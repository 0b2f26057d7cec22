"""What the modes of a column mean where it is decided by a hair: ties, zeros, nothing left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from interv.codegen.bundle import Column
from interv.codegen.kernels.registry import runnable
from interv.codegen.slot import records
from interv.passes.graph.column import Kind, Mode
from tests.kernels.cases import Batch, batch
from tests.tolerances import FLOAT32

forms = pytest.mark.parametrize("form", runnable(torch.device("cpu")))
H, STORE = 100, 3
GATE = Column(0, -1, kind=Kind.GATE, alpha=2.0, low=-np.inf, store=STORE, mode=Mode.STEP)
NAN, INF = float("nan"), float("inf")


def along(first: list[float], columns: list[Column], rest: float = 0.0) -> Batch:
    """Make tokens whose streams have `first` along row 0 of the bank, and `rest` along row 1."""
    made = batch(H, len(first), [columns], np.eye(3, H, dtype=np.float32))
    made.tensors.write(0, records(columns))
    made.slot[: len(first)], made.mask[: len(first)] = 0, -1
    made.hidden[: len(first)] = 0
    made.hidden[: len(first), 0] = torch.tensor(first)
    made.hidden[: len(first), 1] = rest
    return made


def weights(made: Batch, form: str) -> torch.Tensor:
    made.run(form)
    return made.step.gate[: made.tokens, STORE]


ABOVE, BELOW = (float(np.nextafter(np.float32(0.5), np.float32(end))) for end in (1, 0))


@forms
@pytest.mark.parametrize(
    ("gate", "opens"),
    [
        (replace(GATE, low=0.5), [0, 1, 0, 0, 0, 0, 0]),
        (replace(GATE, high=0.5), [0, 0, 1, 1, 0, 0, 0]),
        (replace(GATE, low=-1.0, high=0.5), [0, 0, 1, 1, 0, 0, 0]),
        (replace(GATE, low=0.5, mode=Mode.STEP | Mode.ABSOLUTE), [0, 1, 0, 0, 0, 0, 0]),
        (replace(GATE, high=0.5, mode=Mode.STEP | Mode.ABSOLUTE), [0, 0, 1, 0, 0, 0, 0]),
    ],
    ids=["above", "below", "between", "absolute above", "absolute below"],
)
def test_a_bound_and_what_is_not_finite_are_outside_of_a_step(
    gate: Column, opens: list[int], form: str
) -> None:
    read = [0.5, ABOVE, BELOW, -0.5, NAN, INF, -INF]
    assert weights(along(read, [gate]), form).tolist() == opens


@forms
def test_a_cosine_does_not_depend_on_a_length(form: str) -> None:
    gate = replace(GATE, low=0.6, mode=Mode.COSINE)
    made = along([3.0, 3e-3, 3e3, -3.0], [gate])
    made.hidden[: made.tokens, 1] = torch.tensor([4.0, 4e-3, 4e3, 4.0])
    expected = torch.sigmoid(2.0 * (torch.tensor([0.6, 0.6, 0.6, -0.6]) - 0.6))
    assert (weights(made, form) - expected).abs().max() <= FLOAT32


@forms
def test_a_stream_of_nothing_has_a_cosine_of_zero(form: str) -> None:
    curve = replace(GATE, low=0.25, mode=Mode.COSINE)
    found = weights(along([0.0, -0.0, NAN], [curve]), form)
    expected = torch.sigmoid(torch.tensor(2.0 * -0.25))
    assert (found[:2] - expected).abs().max() <= FLOAT32
    assert found[2:].isnan().all()
    step = replace(GATE, high=0.25, mode=Mode.COSINE | Mode.STEP)
    assert weights(along([0.0, -0.0, NAN], [step]), form).tolist() == [1, 1, 0]


@forms
def test_a_share_is_of_what_the_column_sees(form: str) -> None:
    share = Column(-1, 2, alpha=0.5, mode=Mode.SHARE, sees=0b1)
    made = along([3.0, -3.0, 0.0], [Column(-1, 1, alpha=4.0), share])
    made.run(form)
    expected = torch.tensor([[3.0, 4.0, 2.5], [-3.0, 4.0, 2.5], [0.0, 4.0, 2.0]])
    assert (made.hidden[:3, :3] - expected).abs().max() <= 5 * FLOAT32
    blind = along([3.0, -3.0, 0.0], [Column(-1, 1, alpha=4.0), replace(share, sees=0)])
    blind.run(form)
    assert (blind.hidden[:3, 2] - torch.tensor([1.5, 1.5, 0.0])).abs().max() <= 5 * FLOAT32


@forms
@pytest.mark.parametrize("carried", [None, torch.float32], ids=["single", "pair"])
def test_what_is_left_of_an_ablation_is_scaled_back(carried: torch.dtype | None, form: str) -> None:
    ablate = Column(0, 0, kind=Kind.KEEP_NORM, strength=1.0, low=0.0, high=0.0)
    made = batch(H, 2, [[ablate]], np.eye(3, H, dtype=np.float32), carried=carried)
    made.slot[:2], made.mask[:2] = 0, -1
    made.tensors.write(0, records([ablate]))
    rest = torch.zeros(()) if made.residual is None else made.residual[:2]
    before = made.hidden[:2] + rest
    made.run(form)
    after = made.hidden[:2] + rest
    assert after[:, 0].abs().max() <= FLOAT32 * before.norm()
    assert (after.norm(dim=1) / before.norm(dim=1) - 1).abs().max() <= FLOAT32


@forms
def test_of_an_ablation_that_leaves_nothing_nothing_is_scaled_back(form: str) -> None:
    rng = np.random.default_rng(3)
    v = rng.normal(size=H)
    bank = np.stack([v / np.linalg.norm(v), v]).astype(np.float32)
    replaced = Column(-1, 1, kind=Kind.REPLACE, alpha=-7.0, strength=1.0)
    ablate = Column(0, 0, kind=Kind.KEEP_NORM, strength=1.0, low=0.0, high=0.0, sees=0b1)
    made = batch(H, 4, [[replaced, ablate]], bank)
    made.tensors.write(0, records([replaced, ablate]))
    made.slot[:4], made.mask[:4] = 0, -1
    made.run(form)
    assert made.hidden[:4].norm(dim=1).max() <= 1e-5 * 7 * np.linalg.norm(v)
