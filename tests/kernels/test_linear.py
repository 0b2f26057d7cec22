"""Full linear maps before a site's columns: against float64, and counted with what follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from interv.codegen.bundle import Column
from interv.codegen.kernels.linear import LinearMaps, linear_maps
from interv.codegen.kernels.registry import FORMS, runnable
from interv.codegen.slot import Part, compose, linear, multiplied, part, records
from interv.document.sites import Site
from interv.passes.graph.column import Kind, Mode
from interv.passes.graph.directions import Map
from interv.passes.placing.plan import GATES
from tests.kernels.cases import ROUNDING, Batch, batch, bits, unit_bank
from tests.tolerances import FLOAT32

forms = pytest.mark.parametrize("form", runnable(torch.device("cpu")))
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
carried = pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
# The last row of the bank is zero, as of any site that has a map.
ROWS, ZERO = 3, 3
MAP = Column(-1, ZERO, kind=Kind.LINEAR, alpha=0.5, store=0)
OTHER = replace(MAP, alpha=-1.25, store=1, selector=1)
GATED = replace(MAP, alpha=2.0, gate=GATES + 1)
STEER = Column(-1, 1, alpha=2.5, selector=1)
HALVES = Column(-1, -1, kind=Kind.GATE, alpha=-1.0, mode=Mode.DECAY)
FADING = [STEER, HALVES, replace(MAP, gate=1)]
SLOTS = [[MAP], [replace(STEER, selector=3), OTHER], [GATED], [STEER], FADING]


def full(name: str, hidden_size: int, seed: int) -> Map:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(hidden_size, hidden_size)) / hidden_size**0.5
    bias = rng.normal(size=hidden_size)
    return Map(name, weight.astype(np.float32), bias.astype(np.float32), name)


def bank(hidden_size: int) -> np.ndarray:
    nothing = np.zeros((1, hidden_size), np.float32)
    return np.concatenate([unit_bank(ROWS, hidden_size), nothing])


def made(
    hidden_size: int = 63,
    tokens: int = 48,
    dtype: torch.dtype = torch.float32,
    pair: bool = False,
    slots: list[list[Column]] = SLOTS,
) -> tuple[Batch, LinearMaps]:
    one = batch(hidden_size, tokens, slots, bank(hidden_size), dtype, dtype if pair else None)
    for slot, columns in enumerate(slots):
        one.tensors.write(slot, records(columns))
    maps = [full(name, hidden_size, seed) for seed, name in enumerate("ab")]
    return one, linear_maps(maps, one.tensors, one.step, {})


def shares(one: Batch, slots: list[list[Column]]) -> Tensor:
    """Return how much of each map each token takes [T, M], token by token."""
    found = torch.zeros(one.tokens, 2, dtype=torch.float64)
    for t in range(one.tokens):
        slot = int(one.slot[t])
        for column in slots[slot] if slot >= 0 else ():
            if column.kind == Kind.LINEAR and int(one.mask[t]) >> column.selector & 1:
                place = column.gate - GATES
                gate = 1.0 if place < -GATES else 0.5 ** int(one.step.index[t])
                gate = gate if place < 0 else float(one.step.gate[t, place])
                found[t, column.store] = column.alpha * gate
    return found


def expected(one: Batch, maps: LinearMaps, share: Tensor) -> Tensor:
    """Return `hidden` [T, H] with the maps applied, in float64."""
    own = one.hidden[: one.tokens].double()
    h = own if one.residual is None else own + one.residual[: one.tokens].double()
    out = own
    for m, (weight, bias) in enumerate(zip(maps.weights, maps.biases, strict=True)):
        out = out + share[:, m, None] * (h @ weight.double().T + bias.double() - h)
    return out


@dtypes
@carried
@pytest.mark.parametrize("hidden_size", [63, 100, 576])
def test_maps_equal_float64(hidden_size: int, pair: bool, dtype: torch.dtype) -> None:
    one, maps = made(hidden_size, dtype=dtype, pair=pair)
    share = shares(one, SLOTS)
    taken = (share != 0).any(dim=1)
    assert 4 < int(taken.sum()) < one.tokens - 4
    end, before, store = expected(one, maps, share), bits(one.hidden), bits(one.store)
    maps(one.hidden, one.residual)
    off = (one.hidden[: one.tokens].double() - end).abs()[taken]
    slack = FLOAT32 * end.abs().amax() * 4 + ROUNDING[dtype] * end.abs()[taken]
    assert (off <= slack).all()
    assert torch.equal(bits(one.hidden)[: one.tokens][~taken], before[: one.tokens][~taken])
    # Spare rows, and what lies between the rows, hold NaN as before.
    assert torch.equal(bits(one.hidden)[one.tokens :], before[one.tokens :])
    assert torch.equal(bits(one.store)[:, hidden_size:], store[:, hidden_size:])


def test_the_form_for_other_devices_is_the_same() -> None:
    one, maps = made(dtype=torch.bfloat16, pair=True)
    share = maps.shares(one.hidden.shape[0])
    assert torch.equal(share[: one.tokens].double(), shares(one, SLOTS))
    # What is computed of spare rows, of NaN, is thrown away.
    dense = maps._mapped(one.hidden, one.residual, share)
    maps(one.hidden, one.residual)
    assert torch.equal(bits(dense), bits(one.hidden))


def test_a_row_that_is_not_a_number_stays_alone() -> None:
    one, maps = made()
    one.hidden[:] = torch.where(torch.arange(len(one.hidden)) == 3, torch.nan, 1.0)[:, None]
    one.slot[:] = torch.tensor([0, -1, 0, 0])[torch.arange(len(one.slot)) % 4]
    one.mask[:] = 1
    maps(one.hidden, None)
    assert one.hidden.isnan().any(dim=1).nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("why", ["no slot", "no bit", "given way", "shut"])
def test_nobody_takes_it_and_nothing_is_computed(why: str) -> None:
    slots = [[GATED if why == "shut" else MAP]]
    one, maps = made(slots=slots)
    one.slot[:], one.mask[:] = 0, 1
    if why == "no slot":
        one.slot[:] = -1
    elif why == "no bit":
        one.mask[:] = 2
    elif why == "given way":
        one.tensors.field("unless")[:, 0] = 1
    else:
        one.step.gate[:, 1] = 0.0
    # Weights that no matmul could be done with.
    broken = replace(maps, weights=(torch.empty(0),) * 2)
    before = bits(one.hidden)
    broken(one.hidden, one.residual)
    assert torch.equal(bits(one.hidden), before)


@forms
def test_a_row_counts_once_for_a_program_that_maps_and_edits_it(form: str) -> None:
    # The cap acts on some rows only, the map on all: every row counts once.
    cap = Column(0, 0, strength=1.0, high=0.0)
    one, maps = made(tokens=8, slots=[[MAP, cap]])
    made_by = records([MAP, cap])
    one.tensors.write(0, made_by)
    one.slot[:8], one.mask[:8] = 0, 1
    start = expected(one, maps, shares(one, [[MAP, cap]]))
    maps(one.hidden, one.residual)
    FORMS[form](one.tensors, one.step, one.counts, torch.float32)(one.hidden, one.residual)
    assert one.edited == [8, 0, 0]
    p = start @ one.tensors.bank[0].double()
    assert 0 < int((p > 0).sum()) < 8
    end = start + (p.clamp(max=0) - p)[:, None] * one.tensors.bank[0].double()
    assert (one.hidden[:8] - end).abs().max() <= 10 * FLOAT32
    assert int(one.counts.seats.sum()) == int((one.step.seat[:8] >= 0).sum())


@forms
def test_a_map_and_another_program_count_each(form: str) -> None:
    one, maps = made(tokens=4, slots=[[MAP, STEER]])
    both = np.concatenate([records([MAP], 0), records([STEER], 1)])
    one.tensors.write(0, both)
    one.slot[:4], one.mask[:4] = 0, torch.tensor([1, 2, 3, 0])
    maps(one.hidden, one.residual)
    FORMS[form](one.tensors, one.step, one.counts, torch.float32)(one.hidden, one.residual)
    assert one.edited == [2, 2, 0]


def one_part(*columns: Column) -> Part:
    return part([Site("post_block", 0)], {Site("post_block", 0): columns})


def test_a_slot_scales_a_map_and_keeps_its_number() -> None:
    opens = Column(0, -1, kind=Kind.GATE, alpha=1.0, store=0)
    rows = compose(
        [(one_part(opens, STEER), 1.0), (one_part(OTHER), -2.0)], 4, "sequential"
    ).columns[0]
    assert linear(rows[:3]).tolist() == [False, False, True]
    assert (rows[2]["alpha"], rows[2]["store"], rows[2]["unless"]) == (2.5, 1, 0)
    assert multiplied(records([MAP]), 0.0)["alpha"] == 0


def test_under_priority_a_map_gives_way_token_by_token() -> None:
    rows = compose([(one_part(STEER), 1.0), (one_part(MAP), 1.0)], 2, "priority").columns[0]
    assert (rows[1]["unless"], rows[1]["bit"]) == (0b10, 0b01)


def test_a_map_of_several_sites_is_kept_once() -> None:
    held: dict[str, tuple[Tensor, Tensor]] = {}
    one, _ = made()
    first = linear_maps([full("a", 63, 0)], one.tensors, one.step, held)
    second = linear_maps([full("b", 63, 1), full("a", 63, 0)], one.tensors, one.step, held)
    assert second.weights[1] is first.weights[0]
    assert sorted(held) == ["a", "b"]
