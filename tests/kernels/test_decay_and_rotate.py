"""What decays and what rotates, in every form of the update."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from interv.codegen.bundle import Column
from interv.codegen.kernels.registry import runnable
from interv.codegen.slot import records
from interv.passes.graph.column import Kind, Mode
from tests.kernels.cases import Batch, batch, bits
from tests.tolerances import FLOAT32

forms = pytest.mark.parametrize("form", runnable(torch.device("cpu")))
H, TOKENS = 100, 6
# Half as much from one generated token to the next, which is exact.
HALVES = Column(-1, -1, kind=Kind.GATE, alpha=-1.0, mode=Mode.DECAY)
ADD = Column(-1, 2, alpha=2.5)
CAP = Column(2, 2, strength=0.75, low=0.5, high=0.75)
REPLACE = Column(-1, 2, kind=Kind.REPLACE, alpha=-7.0, strength=1.0)


def plane(degrees: float, low: float = -math.inf, strength: float = 1.0) -> list[Column]:
    """Return the columns that turn to an angle in the plane of rows 0 and 1."""
    angle = math.radians(degrees)
    shared = Column(0, 0, kind=Kind.ROTATE, strength=strength, low=low)
    first = replace(shared, alpha=math.cos(angle), block=2)
    return [first, replace(shared, a=1, b=1, alpha=math.sin(angle))]


def made(columns: list[Column], dtype: torch.dtype = torch.float32) -> Batch:
    """Make a batch whose every token has the one slot, generated tokens 0, 1, 2, … of a request."""
    rows = np.linalg.qr(np.random.default_rng(0).normal(size=(H, 4)))[0].T
    one = batch(H, TOKENS, [columns], np.ascontiguousarray(rows, dtype=np.float32), dtype)
    one.tensors.write(0, records(columns))
    one.slot[:TOKENS], one.mask[:TOKENS] = 0, -1
    one.step.index[:TOKENS] = torch.arange(TOKENS)
    return one


def run(columns: list[Column], form: str, dtype: torch.dtype = torch.float32) -> Batch:
    one = made(columns, dtype)
    one.run(form)
    return one


@forms
@pytest.mark.parametrize("edit", [ADD, CAP, REPLACE], ids=["steer", "cap", "replace"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_decay_is_its_power_bit_for_bit(edit: Column, dtype: torch.dtype, form: str) -> None:
    faded = run([HALVES, replace(edit, gate=0)], form, dtype)
    for index in range(TOKENS):
        share = 0.5**index
        if edit.kind == Kind.REPLACE:
            scaled = replace(edit, strength=share)
        else:
            scaled = replace(edit, alpha=edit.alpha * share, strength=edit.strength * share)
        plain = run([scaled], form, dtype)
        assert torch.equal(bits(faded.hidden)[index], bits(plain.hidden)[index])
    assert sum(faded.edited) <= TOKENS


@forms
def test_a_decay_weighs_a_gate_and_what_that_stores(form: str) -> None:
    gate = Column(3, -1, kind=Kind.GATE, alpha=1.5, low=0.25, gate=0, store=3)
    one = made([HALVES, gate, replace(ADD, gate=1)])
    start = one.hidden[:TOKENS].clone()
    opened = torch.sigmoid(1.5 * (start @ one.tensors.bank[3] - 0.25))
    one.run(form)
    weights = opened * 0.5 ** torch.arange(TOKENS)
    assert (one.step.gate[:TOKENS, 3] - weights).abs().max() <= FLOAT32
    expected = start + 2.5 * weights[:, None] * one.tensors.bank[2]
    assert (one.hidden[:TOKENS] - expected).abs().max() <= FLOAT32


@forms
def test_what_has_decayed_to_nothing_leaves_the_bits(form: str) -> None:
    one = made([HALVES, replace(ADD, gate=0)])
    one.step.index[:TOKENS] = 2_000
    before = bits(one.hidden)
    one.run(form)
    assert torch.equal(bits(one.hidden), before)
    assert one.edited == [0, 0, 0]


@forms
@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, -135.0, 180.0, 300.0])
def test_a_rotation_ends_at_its_angle_and_keeps_the_rest(degrees: float, form: str) -> None:
    one = made(plane(degrees))
    start = one.hidden[:TOKENS].double()
    one.run(form)
    end, rows = one.hidden[:TOKENS].double(), one.tensors.bank[:2].double()
    before, after = start @ rows.T, end @ rows.T
    length, angle = before.norm(dim=1), math.radians(degrees)
    aim = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    assert (after - length[:, None] * aim).abs().max() <= FLOAT32
    assert (end.norm(dim=1) / start.norm(dim=1) - 1).abs().max() <= FLOAT32
    assert ((end - after @ rows) - (start - before @ rows)).abs().max() <= FLOAT32
    assert sum(one.edited) == TOKENS


@forms
def test_an_adaptive_rotation_leaves_what_holds_nothing_of_its_vector(form: str) -> None:
    one = made(plane(45.0, low=0.0))
    one.hidden[:TOKENS:2] *= -1
    holds = (one.hidden[:TOKENS] @ one.tensors.bank[0]) > 0
    assert holds.any()
    assert not holds.all()
    before = bits(one.hidden)
    one.run(form)
    changed = (bits(one.hidden) != before).any(dim=1)[:TOKENS]
    assert torch.equal(changed, holds)
    assert sum(one.edited) == int(holds.sum())


@forms
def test_nothing_in_the_plane_stays(form: str) -> None:
    one = made(plane(45.0))
    one.hidden[:TOKENS] = 0
    one.hidden[1] = -0.0
    before = bits(one.hidden)
    one.run(form)
    assert torch.equal(bits(one.hidden), before)
    assert one.edited == [0, 0, 0]


@forms
def test_a_rotation_halfway_goes_the_straight_way(form: str) -> None:
    whole, half = run(plane(70.0), form), run(plane(70.0, strength=0.5), form)
    start = made([]).hidden[:TOKENS]
    expected = (start + whole.hidden[:TOKENS]) / 2
    assert (half.hidden[:TOKENS] - expected).abs().max() <= FLOAT32
    faded = run([HALVES, *(replace(one, gate=0) for one in plane(70.0))], form)
    assert torch.equal(bits(faded.hidden)[1], bits(half.hidden)[1])


@forms
def test_what_stands_behind_a_rotation_reads_it(form: str) -> None:
    pin = Column(0, 0, strength=1.0, low=-9.0, high=9.0, sees=0b11)
    reads = Column(0, 3, beta=1.0, sees=0b11)
    one = run([*plane(90.0), pin, reads], form)
    plain = run(plane(90.0), form)
    # At 90 degrees nothing of row 0 is left to be read.
    assert (one.hidden[:TOKENS] - plain.hidden[:TOKENS]).abs().max() <= FLOAT32
