"""The reference in float64 against programs that change a vector op by op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings, strategies as st

from interv.codegen.bundle import Column, SiteTable
from interv.codegen.kernels import reference
from interv.codegen.slot import records
from interv.codegen.tables import StepTensors, site_tensors, slot_tables
from interv.document.sites import Site
from interv.passes.graph.column import Kind
from tests.kernels import plain
from tests.kernels.cases import unit_bank
from tests.kernels.columns import MOST_JOINT, NAMES, PLACES, random_columns
from tests.tolerances import JOINT, SEQUENCE

H, ROWS, TOKENS, OPS = 24, 7, 5, 6
EXACT = tuple(name for name in NAMES if name != "joint")
seeds = st.integers(0, 2**32 - 1)


def streams(seed: int) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(TOKENS, H))


def gates(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng([seed, 1]).random((TOKENS, PLACES), dtype=np.float32)


def masks(seed: int) -> list[int]:
    """Return selector bits of every token: all, none, and some."""
    some = np.random.default_rng([seed, 2]).integers(-(2**63), 2**63 - 1, size=TOKENS)
    return [-1, 0, *(int(x) for x in some[2:])]


def bank(lengths: bool = True) -> npt.NDArray[np.float32]:
    """Return directions that lean on each other; added ones need not be unit."""
    made = unit_bank(ROWS, H)
    return made * np.linspace(0.5, 2, ROWS, dtype=np.float32)[:, None] if lengths else made


def fused(
    h: npt.NDArray[np.float64],
    rows: npt.NDArray[np.float32],
    columns: Sequence[Column],
    mask: Sequence[int],
    weights: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    """Return the streams after the reference."""
    slots = slot_tables(1, 1, max(1, len(columns)), "cpu")
    site = site_tensors(SiteTable(Site("post_block", 0), rows, {}), slots, 0, "cpu")
    site.write(0, records(columns))
    slot = torch.zeros(len(h), dtype=torch.int32)
    step = StepTensors(
        slot,
        torch.tensor(mask),
        torch.full_like(slot, -1),
        torch.from_numpy(weights.copy()),
        torch.arange(len(h), dtype=torch.int32),
    )
    hidden = torch.from_numpy(h.copy())
    reference.update(hidden, None, step, site)
    return hidden.numpy()


def one_by_one(
    program: Callable[..., plain.Vector],
    h: npt.NDArray[np.float64],
    rows: npt.NDArray[np.float32],
    columns: Sequence[Column],
    mask: Sequence[int],
    weights: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    """Return the streams after a plain program, token by token."""
    end = []
    for index, (token, bits, given_) in enumerate(zip(h, mask, weights, strict=True)):
        on = [bool(bits >> one.selector & 1) for one in columns]
        as_stored = [float(x) for x in given_]
        end.append(program(token, rows.astype(np.float64), columns, on, as_stored, index))
    return np.array(end)


def single(columns: Sequence[Column]) -> list[Column]:
    """Write scalars as a slot holds them, in float32."""
    names = ("alpha", "beta", "strength", "low", "high")
    return [
        replace(one, **{name: float(np.float32(getattr(one, name))) for name in names})
        for one in columns
    ]


def seeing(columns: Sequence[Column], everything: bool) -> list[Column]:
    """Let every column see all earlier ones but gates, or none; in a block also each other."""
    made, start = [], 0
    for i, one in enumerate(columns):
        start = i if one.block or one.kind != Kind.JOINT else start
        earlier = sum(1 << k for k in range(start) if columns[k].kind != Kind.GATE)
        inside = one.sees >> start << start if one.kind == Kind.JOINT else 0
        made.append(replace(one, sees=inside | (earlier if everything else 0)))
    return made


@given(seed=seeds)
@settings(deadline=None, max_examples=300)
def test_six_ops_one_after_another(seed: int) -> None:
    columns = seeing(single(random_columns(OPS, ROWS, seed, EXACT)), everything=True)
    on = (streams(seed), bank(), columns, masks(seed), gates(seed))
    assert np.abs(fused(*on) - one_by_one(plain.run, *on)).max() <= SEQUENCE


@given(seed=seeds)
@settings(deadline=None, max_examples=150)
def test_six_ops_that_all_read_the_original(seed: int) -> None:
    columns = seeing(single(random_columns(OPS, ROWS, seed, EXACT)), everything=False)
    on = (streams(seed), bank(), columns, masks(seed), gates(seed))
    assert np.abs(fused(*on) - one_by_one(plain.apart, *on)).max() <= SEQUENCE


@given(seed=seeds)
@settings(deadline=None, max_examples=100)
def test_joint_caps_among_other_ops(seed: int) -> None:
    columns = seeing(single(random_columns(OPS, ROWS, seed)), everything=True)
    on = (streams(seed), bank(lengths=False), columns, masks(seed), gates(seed))
    off = np.abs(fused(*on) - one_by_one(plain.run, *on)).max()
    assert off <= JOINT * np.abs(on[0]).max()


@pytest.mark.parametrize("size", range(1, MOST_JOINT + 1))
@given(seed=seeds)
@settings(deadline=None, max_examples=40)
def test_joint_caps_all_hold_and_the_change_is_the_smallest(size: int, seed: int) -> None:
    columns = []
    while len(columns) < size:
        seed += 1
        columns = single(random_columns(MOST_JOINT, ROWS, seed, ("joint",))[:size])
        columns = columns if columns[0].block == size else []
    h, rows = streams(seed), bank(lengths=False)
    end = fused(h, rows, columns, [-1] * TOKENS, gates(seed))
    for one in columns:
        p = end @ rows[one.a].astype(np.float64)
        assert (p >= one.low - JOINT).all()
        assert (p <= one.high + JOINT).all()
    nearest = [plain.nearest(token, rows.astype(np.float64), columns) for token in h]
    assert np.abs(end - np.array(nearest)).max() <= JOINT


@given(seed=seeds, scale=st.floats(-50, 50))
@settings(deadline=None, max_examples=60)
def test_a_steer_that_keeps_the_norm_keeps_it(seed: int, scale: float) -> None:
    h, column = streams(seed), Column(-1, 3, alpha=scale, kind=Kind.KEEP_NORM)
    end = fused(h, bank(), [column], [-1] * TOKENS, gates(seed))
    norms = np.linalg.norm(h, axis=1)
    assert np.abs(np.linalg.norm(end, axis=1) - norms).max() <= 1e-12 * norms.max()
    steered = h + np.float32(scale) * bank()[3].astype(np.float64)
    # The direction is that of the plain steer.
    along = (end * steered).sum(axis=1) / np.linalg.norm(steered, axis=1)
    assert np.abs(along - norms).max() <= 1e-12 * norms.max()
