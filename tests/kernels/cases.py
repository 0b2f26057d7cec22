"""Random batches for the forms of the update, and their truth in float64."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from interv.codegen.bundle import Column, SiteTable
from interv.codegen.kernels import reference
from interv.codegen.kernels.registry import FORMS
from interv.codegen.tables import SiteTensors, site_tensors, write_slot
from interv.sites import Site
from tests.tolerances import BFLOAT16, FLOAT16, FLOAT32, INTERPRETED_BFLOAT16

# Rows of the buffers beyond the batch, and elements beyond each row; both hold NaN.
SPARE_ROWS, SPARE_COLUMNS = 3, 5
ROUNDING = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}
_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


@dataclass(frozen=True, eq=False)
class Batch:
    """One site's tables and a batch on it; the rows beyond the T tokens have no slot."""

    tensors: SiteTensors
    hidden: Tensor  # [T + spare, H], rows not contiguous
    residual: Tensor | None
    slot: Tensor  # [T + spare] int32
    mask: Tensor  # [T + spare] int64
    tokens: int
    store: Tensor  # the memory under `hidden`, with what lies between its rows
    edited: Tensor = field(init=False)  # [S] int64

    def __post_init__(self) -> None:
        object.__setattr__(self, "edited", torch.zeros(len(self.tensors.count), dtype=torch.int64))

    def run(self, form: str) -> None:
        """Apply a form to the whole buffer, spare rows included."""
        make = FORMS[form]
        update = make(self.tensors, self.slot, self.mask, self.edited, self.hidden.dtype)
        update(self.hidden, self.residual)


@dataclass(frozen=True, eq=False)
class Truth:
    """What a batch must become: the stream, how far off a row may be, and the counts."""

    hidden: Tensor  # [T, H] float64
    slack: Tensor  # [T, 1] float64, for arithmetic in float32
    edited: Tensor  # [S] int64


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
    table = SiteTable(Site("post_block", 0), bank, {})
    tensors = site_tensors(table, len(columns), "cpu", width)
    for index, one in enumerate(columns):
        write_slot(tensors, index, one)
    hidden, store = _rows(tokens, hidden_size, dtype, made)
    residual = None if carried is None else _rows(tokens, hidden_size, carried, made)[0]
    slot = torch.full((tokens + SPARE_ROWS,), -1, dtype=torch.int32)
    slot[:tokens] = torch.randint(-1, len(columns), (tokens,), generator=made)
    mask = torch.randint(-(2**63), 2**63 - 1, (tokens + SPARE_ROWS,), generator=made)
    mask[:tokens:4] = 0
    return Batch(tensors, hidden, residual, slot, mask, tokens, store)


def _rows(
    tokens: int, hidden_size: int, dtype: torch.dtype, made: torch.Generator
) -> tuple[Tensor, Tensor]:
    shape = (tokens + SPARE_ROWS, hidden_size + SPARE_COLUMNS)
    store = torch.full(shape, torch.nan, dtype=dtype)
    store[:tokens, :hidden_size] = torch.randn(tokens, hidden_size, generator=made).to(dtype)
    return store[:, :hidden_size], store


def truth(one: Batch) -> Truth:
    """Run the reference on the batch's own numbers in float64; call it before a form has run."""
    n = one.tokens
    start = one.hidden[:n].double()
    carried = None if one.residual is None else one.residual[:n].double()
    end, edited = start.clone(), torch.zeros_like(one.edited)
    reference.update(end, carried, one.slot[:n], one.mask[:n], one.tensors, edited)
    stream = start if carried is None else start + carried
    scale = stream.norm(dim=1) + (end - start).norm(dim=1) + start.norm(dim=1)
    return Truth(end, FLOAT32 * scale[:, None], edited)


def bits(x: Tensor) -> Tensor:
    """Return the raw bits of a tensor, so that NaN equals itself."""
    return x.contiguous().view(_BITS[x.dtype])


def rounding(form: str, dtype: torch.dtype) -> float:
    """Return how far off storing a number in `dtype` may be, relative to the number."""
    interpreted = form == "triton" and dtype == torch.bfloat16
    return INTERPRETED_BFLOAT16 if interpreted else ROUNDING[dtype]


def check(one: Batch, form: str) -> None:
    """Run a form and compare every row with the truth, and every other byte with what it was."""
    expected, before, store = truth(one), bits(one.hidden), bits(one.store)
    carried = None if one.residual is None else bits(one.residual)
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
    assert torch.equal(one.edited, expected.edited)


def before_values(before: Tensor, one: Batch) -> Tensor:
    """Return the batch's rows as they were, from their bits, in float64."""
    return before.view(one.hidden.dtype)[: one.tokens].double()


def unit_bank(rows: int, hidden_size: int, seed: int = 0) -> np.ndarray:
    """Make unit directions; every third one leans on the one before, so that Grams matter."""
    rng = np.random.default_rng(seed)
    bank = rng.normal(size=(rows, hidden_size))
    bank[2::3] += 0.7 * bank[1::3][: len(bank[2::3])]
    return (bank / np.linalg.norm(bank, axis=1, keepdims=True)).astype(np.float32)


def random_columns(count: int, rows: int, seed: int) -> list[Column]:
    """Make `count` columns of every kind, over a bank of `rows`, each with its own selector."""
    rng = np.random.default_rng([seed, count])
    made = []
    for index in range(count):
        a, b, other = (int(row) for row in rng.integers(rows, size=3))
        sees = int(rng.integers(2**63)) & ((1 << index) - 1)
        shared = {"selector": int(rng.choice([0, 1, 31, 32, 62, 63])), "sees": sees}
        low, high = sorted(float(x) for x in rng.normal(size=2))
        made.append(
            (
                Column(-1, b, alpha=float(rng.normal()), **shared),
                Column(a, a, strength=0.75, low=low, high=high, **shared),
                Column(a, a, strength=1.0, low=low, **shared),
                Column(a, a, strength=1.0, high=high, **shared),
                Column(a, a, beta=-1.0, **shared),
                Column(a, other, beta=0.5, alpha=0.1, **shared),
                Column(a, a, strength=0.0, low=low, high=high, **shared),
            )[int(rng.integers(7))]
        )
    return made
