"""Every form of an update with the norm behind it, against the two in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from interv.codegen.bundle import Column
from interv.codegen.kernels.norm import Norm, add_norm
from interv.codegen.kernels.registry import FORMS, norm_form, runnable
from interv.passes.captured.norm_rounding import Rounding
from tests.kernels.cases import (
    DEVICE,
    SPARE_COLUMNS,
    Batch,
    batch,
    bits,
    no_counts,
    rounding,
    truth,
    unit_bank as bank_of,
)
from tests.kernels.columns import random_columns
from tests.tolerances import FLOAT32

EPSILON = 1e-5
forms = pytest.mark.parametrize("form", runnable(DEVICE))
DTYPES = [
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.float16),
]


def made_batch(
    hidden_size: int, tokens: int, dtype: torch.dtype, carried: torch.dtype, seed: int = 0
) -> Batch:
    columns = [random_columns(count, 7, seed=tokens) for count in range(0, 17, 2)]
    return batch(hidden_size, tokens, columns, bank_of(7, hidden_size), dtype, carried, seed)


def weights(hidden_size: int, dtype: torch.dtype) -> Tensor:
    made = torch.Generator().manual_seed(5)
    return (1 + 0.3 * torch.randn(hidden_size, generator=made)).to(dtype)


def output(one: Batch) -> tuple[Tensor, Tensor]:
    """Return poisoned memory for a result, and the part of it that is to be written."""
    store = torch.full_like(one.store, torch.nan)
    return store, store[:, : one.hidden.shape[1]]


def run(one: Batch, form: str, norm: Norm, into: tuple[Tensor, Tensor]) -> None:
    """Write what a form gives to `into`: the norm and the new residual."""
    assert one.residual is not None
    update = FORMS[form](one.tensors, one.step, one.counts, one.hidden.dtype)
    fused = norm_form(form, update, one.tensors, one.step, one.counts)
    fused(one.hidden, one.residual, norm, *into)


def near(got: Tensor, expected: Tensor, allowed: Tensor) -> None:
    off = (got.double() - expected).abs() / allowed
    assert off.max() <= 1, f"off by {off.max():.2f} times what is allowed"


@forms
@pytest.mark.parametrize(
    ("how", "weighted"),
    [
        (Rounding.TORCH, "same"),
        (Rounding.TORCH, "float32"),
        (Rounding.COMPILED, "none"),
        (Rounding.COMPILED, "float32"),
        (Rounding.KERNEL, "same"),
    ],
)
@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
@pytest.mark.parametrize("hidden_size", [63, 1000])
def test_equals_the_update_and_then_the_norm(
    hidden_size: int,
    dtypes: tuple[torch.dtype, torch.dtype],
    weighted: str,
    how: Rounding,
    form: str,
) -> None:
    one = made_batch(hidden_size, 6, *dtypes)
    dtype, n = dtypes[0], one.tokens
    kind = {"none": None, "same": dtype, "float32": torch.float32}[weighted]
    weight = None if kind is None else weights(hidden_size, kind)
    expected = truth(one)
    assert one.residual is not None
    wide = None if weight is None else weight.double()
    carried = one.residual[:n].double()
    normed, total = add_norm(expected.hidden, carried, Norm(wide, EPSILON, how))
    whole, (store, out), (other, kept) = bits(one.store), output(one), output(one)
    run(one, form, Norm(weight, EPSILON, how), (out, kept))
    unit = rounding(form, dtype)
    # The edit is rounded, then the sum.
    allowed = (
        expected.slack + unit * (expected.hidden.abs() + total.abs()) + FLOAT32 * carried.abs()
    )
    near(kept[:n], total, allowed + 1e-30)
    root = (total.pow(2).mean(dim=1, keepdim=True) + EPSILON).sqrt()
    scale = 1 if wide is None else wide.abs()
    drift = allowed.pow(2).mean(dim=1, keepdim=True).sqrt() / root
    # Three roundings: of what is normed, of the norm, of the product.
    near(
        out[:n],
        normed,
        scale * allowed / root + (3 * unit + drift + FLOAT32) * normed.abs() + 1e-30,
    )
    assert torch.equal(bits(one.store), whole)
    for memory in (store, other):
        assert memory[:, -SPARE_COLUMNS:].isnan().all()
        assert memory[n:].isnan().all()
    assert torch.equal(one.counts.total, expected.counts.total)
    assert torch.equal(one.counts.seats, expected.counts.seats)


@forms
@pytest.mark.parametrize("how", Rounding)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_joining_the_two_changes_no_bit_of_the_stream(
    dtype: torch.dtype, how: Rounding, form: str
) -> None:
    one, apart = (made_batch(100, 12, dtype, dtype, seed=3) for _ in range(2))
    norm = Norm(weights(100, dtype), EPSILON, how)
    (_, out), (_, kept) = output(one), output(one)
    run(one, form, norm, (out, kept))
    apart.run(form)
    assert apart.residual is not None
    normed, total = add_norm(apart.hidden, apart.residual, norm)
    n = one.tokens
    assert torch.equal(bits(kept[:n]), bits(total[:n]))
    unit = rounding(form, dtype)
    near(out[:n], normed[:n].double(), 2 * unit * normed[:n].double().abs() + 1e-30)
    assert torch.equal(bits(one.step.gate), bits(apart.step.gate))
    assert torch.equal(one.counts.total, apart.counts.total)


@forms
def test_writes_over_what_it_read(form: str) -> None:
    one, apart = (made_batch(100, 9, torch.float16, torch.float16, seed=1) for _ in range(2))
    norm = Norm(weights(100, torch.float16), EPSILON, Rounding.KERNEL)
    (_, out), (_, kept) = output(one), output(one)
    run(apart, form, norm, (out, kept))
    assert one.residual is not None
    run(one, form, norm, (one.hidden, one.residual))
    n = one.tokens
    assert torch.equal(bits(one.hidden[:n]), bits(out[:n]))
    assert torch.equal(bits(one.residual[:n]), bits(kept[:n]))


@forms
def test_a_token_without_an_edit_gets_the_plain_norm(form: str) -> None:
    columns = [Column(-1, 0, alpha=1.0, selector=5)]
    one = batch(100, 4, [columns], bank_of(2, 100), torch.float16, torch.float16)
    one.slot[:4] = torch.tensor([-1, 0, 0, 0])
    one.mask[:4] = torch.tensor([-1, 0, ~(1 << 5), 1 << 5])
    norm = Norm(weights(100, torch.float16), EPSILON, Rounding.TORCH)
    assert one.residual is not None
    normed, total = add_norm(one.hidden, one.residual, norm)
    (_, out), (_, kept) = output(one), output(one)
    run(one, form, norm, (out, kept))
    assert torch.equal(bits(kept[:3]), bits(total[:3]))
    unit = rounding(form, torch.float16)
    near(out[:3], normed[:3].double(), 2 * unit * normed[:3].double().abs() + 1e-30)
    assert not torch.equal(kept[3], total[3])
    assert sum(one.edited) == 1


@pytest.mark.parametrize("form", [form for form in runnable(DEVICE) if form != "torch"])
def test_a_wrong_layout_is_refused(form: str) -> None:
    one, plain = made_batch(100, 4, torch.float32, torch.float32), Norm(None, 1.0, Rounding.TORCH)
    assert one.residual is not None
    turned = replace(one, hidden=torch.zeros(100, 7).T, counts=no_counts())
    with pytest.raises(AssertionError):
        run(turned, form, plain, (one.hidden.clone(), one.residual.clone()))
    short = replace(one, residual=one.residual[:5])
    with pytest.raises(AssertionError):
        run(short, form, plain, (one.hidden.clone(), one.residual.clone()))
