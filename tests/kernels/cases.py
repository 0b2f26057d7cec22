"""Random batches for the forms of the update, and their truth in float64."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from interv.codegen.bundle import Column, SiteTable
from interv.codegen.kernels import reference
from interv.codegen.kernels.registry import FORMS
from interv.codegen.slot import records
from interv.codegen.tables import (
    SiteCounts,
    SiteTensors,
    StepTensors,
    site_tensors,
    slot_tables,
)
from interv.document.sites import Site
from tests.kernels.columns import PLACES, READ_PLACES, SHARPNESS
from tests.tolerances import BFLOAT16, FLOAT16, FLOAT32, INTERPRETED_BFLOAT16

# Where forms run; `make gpu` says "cuda".
DEVICE = torch.device(os.environ.get("INTERV_TEST_DEVICE", "cpu"))
# Rows of the buffers beyond the batch, and elements beyond each row; both hold NaN.
SPARE_ROWS, SPARE_COLUMNS = 3, 5
ROUNDING = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}
_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
# Two NaN, and as integers no bank row, no kind and no place.
_POISON = 0x7FC0000B7FC0000B
PROGRAMS, SEATS = 3, 2


def no_counts() -> SiteCounts:
    """Return counts of zero; they lie in memory as those of one site among several do."""
    seats = torch.zeros(SEATS, 2, PROGRAMS, dtype=torch.int64, device=DEVICE)
    return SiteCounts(torch.zeros(PROGRAMS, dtype=torch.int64, device=DEVICE), seats[:, 1])


@dataclass(frozen=True, eq=False)
class Batch:
    """One site's tables and a batch on it; the rows beyond the T tokens have no slot."""

    tensors: SiteTensors
    hidden: Tensor  # [T + spare, H], rows not contiguous
    residual: Tensor | None
    step: StepTensors  # of T + spare tokens
    tokens: int
    store: Tensor  # the memory under `hidden`, with what lies between its rows
    counts: SiteCounts = field(default_factory=no_counts)

    @property
    def slot(self) -> Tensor:
        """Return the slots, [T + spare] int32."""
        return self.step.slot

    @property
    def mask(self) -> Tensor:
        """Return the selector bits, [T + spare] int64."""
        return self.step.mask

    @property
    def edited(self) -> list[int]:
        """Return the rows counted so far, by program."""
        return self.counts.total.tolist()

    def run(self, form: str) -> None:
        """Apply a form to the whole buffer, spare rows included."""
        update = FORMS[form](self.tensors, self.step, self.counts, self.hidden.dtype)
        update(self.hidden, self.residual)


@dataclass(frozen=True, eq=False)
class Truth:
    """What a batch must become: stream, gates, how far off a row may be, and the counts."""

    hidden: Tensor  # [T, H] float64
    gate: Tensor  # [T + spare, G] float64
    slack: Tensor  # [T, 1] float64, for arithmetic in float32
    counts: SiteCounts


def batch(
    hidden_size: int,
    tokens: int,
    columns: list[list[Column]],
    bank: np.ndarray,
    dtype: torch.dtype = torch.float32,
    carried: torch.dtype | None = None,
    seed: int = 0,
) -> Batch:
    """Make a batch over slots that hold `columns`, one list a slot; `carried` is the residual's."""
    made = torch.Generator().manual_seed(seed)
    width = max(1, *(len(one) for one in columns))
    # A site before this one, so that slots do not lie side by side.
    slots = slot_tables(2, len(columns), width, DEVICE)
    tensors = site_tensors(SiteTable(Site("post_block", 0), bank, {}), slots, 1, DEVICE)
    tensors.columns.fill_(_POISON)
    for index, one in enumerate(columns):
        tensors.write(index, mixed(one, index))
    hidden, store = _rows(tokens, hidden_size, dtype, made)
    residual = None if carried is None else _rows(tokens, hidden_size, carried, made)[0]
    slot = torch.full((tokens + SPARE_ROWS,), -1, dtype=torch.int32)
    slot[:tokens] = torch.randint(-1, len(columns), (tokens,), generator=made)
    mask = torch.randint(-(2**63), 2**63 - 1, (tokens + SPARE_ROWS,), generator=made)
    mask[:tokens:4] = 0
    seat = torch.arange(tokens + SPARE_ROWS, dtype=torch.int32) % (SEATS + 1) - 1
    slot, mask, seat = slot.to(DEVICE), mask.to(DEVICE), seat.to(DEVICE)
    step = StepTensors(slot, mask, seat, _gates(tokens, made))
    return Batch(tensors, hidden, residual, step, tokens, store)


def mixed(columns: list[Column], seed: int) -> np.ndarray:
    """Return columns of several programs, of which some give way to others."""
    made = records(columns)
    rng = np.random.default_rng([seed, len(columns)])
    made["program"] = np.sort(rng.integers(PROGRAMS, size=len(columns)))
    later = made["program"] > 0
    made["unless"] = np.where(later & (rng.random(len(columns)) < 0.3), 1 << 31, 0)
    for first in np.flatnonzero(made["block"]):
        block = slice(first, first + made["block"][first])
        made["program"][block], made["unless"][block] = (
            made[first]["program"],
            made[first]["unless"],
        )
    return made


def _gates(tokens: int, made: torch.Generator) -> Tensor:
    """Return a step's gates, rows not contiguous; those that no column reads are NaN."""
    store = torch.full((tokens + SPARE_ROWS, PLACES + 2), torch.nan)
    for place in READ_PLACES:
        weights = torch.rand(tokens, generator=made)
        store[:tokens, place] = (1.5 * weights - 0.25).clamp(0, 1)
    return store.to(DEVICE)[:, :PLACES]


def _rows(
    tokens: int, hidden_size: int, dtype: torch.dtype, made: torch.Generator
) -> tuple[Tensor, Tensor]:
    shape = (tokens + SPARE_ROWS, hidden_size + SPARE_COLUMNS)
    store = torch.full(shape, torch.nan, dtype=dtype)
    store[:tokens, :hidden_size] = torch.randn(tokens, hidden_size, generator=made).to(dtype)
    store = store.to(DEVICE)
    return store[:, :hidden_size], store


def truth(one: Batch) -> Truth:
    """Run the reference on the batch's own numbers in float64; call it before a form has run."""
    n = one.tokens
    start = one.hidden[:n].double()
    carried = None if one.residual is None else one.residual[:n].double()
    end, counts = start.clone(), no_counts()
    step = replace(one.step, gate=one.step.gate.double())
    reference.update(end, carried, step, one.tensors, counts)
    stream = start if carried is None else start + carried
    # A weight is off by a part of what is read; a component by that of a direction's largest, and
    # by a part of the stream's own where a part of the stream is taken away.
    read = stream.norm(dim=1) + (end - start).norm(dim=1) + start.norm(dim=1)
    largest = stream.abs().amax(dim=1) + start.abs().amax(dim=1)
    scale = read * one.tensors.bank.abs().max() + largest
    return Truth(end, step.gate, FLOAT32 * scale[:, None], counts)


def bits(x: Tensor) -> Tensor:
    """Return the raw bits of a tensor, so that NaN equals itself."""
    return x.contiguous().view(_BITS[x.dtype])


def rounding(form: str, dtype: torch.dtype) -> float:
    """Return how far off storing a number in `dtype` may be, relative to the number."""
    interpreted = form == "triton" and dtype == torch.bfloat16 and DEVICE.type == "cpu"
    return INTERPRETED_BFLOAT16 if interpreted else ROUNDING[dtype]


def check(one: Batch, form: str) -> None:
    """Run a form and compare every row with the truth, and every other byte with what it was."""
    expected, before, store = truth(one), bits(one.hidden), bits(one.store)
    carried = None if one.residual is None else bits(one.residual)
    gates = one.step.gate.clone()
    one.run(form)
    n, got = one.tokens, one.hidden[: one.tokens].double()
    off = (got - expected.hidden).abs()
    allowed = expected.slack + rounding(form, one.hidden.dtype) * expected.hidden.abs()
    assert (off <= allowed).all(), f"off by {(off / allowed).max():.2f} times what is allowed"
    untouched = (expected.hidden == before_values(before, one)).all(dim=1)
    assert torch.equal(bits(one.hidden)[:n][untouched], before[:n][untouched])
    size = one.hidden.shape[1]
    assert torch.equal(bits(one.store)[n:], store[n:])
    assert torch.equal(bits(one.store)[:, size:], store[:, size:])
    assert carried is None or torch.equal(bits(one.residual), carried)
    assert torch.equal(one.counts.total, expected.counts.total)
    assert torch.equal(one.counts.seats, expected.counts.seats)
    _check_gates(one, gates, expected)


def _check_gates(one: Batch, before: Tensor, expected: Truth) -> None:
    """Compare the gates that were stored, and the bits of all others."""
    stored = one.step.gate.double() - expected.gate
    n = one.tokens
    written = bits(expected.gate.float()) != bits(before)
    assert torch.equal(bits(one.step.gate)[~written], bits(before)[~written])
    # A sigmoid is nowhere steeper than a quarter of its sharpness.
    assert not written[n:].any()
    off = torch.where(written, stored.abs(), 0)[:n]
    reading = expected.slack / one.tensors.bank.abs().max()
    assert (off <= SHARPNESS / 4 * reading + FLOAT32).all()


def before_values(before: Tensor, one: Batch) -> Tensor:
    """Return the batch's rows as they were, from their bits, in float64."""
    return before.view(one.hidden.dtype)[: one.tokens].double()


def unit_bank(rows: int, hidden_size: int, seed: int = 0) -> np.ndarray:
    """Make unit directions; every third one leans on the one before, so that Grams matter."""
    rng = np.random.default_rng(seed)
    bank = rng.normal(size=(rows, hidden_size))
    bank[2::3] += 0.7 * bank[1::3][: len(bank[2::3])]
    return (bank / np.linalg.norm(bank, axis=1, keepdims=True)).astype(np.float32)
