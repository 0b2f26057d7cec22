"""Low rank, int8 and fp8: what comes back, and that the error is the one of the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from interv.sinks.compress import Packed, low_rank, pack, quantized, saves_space, unpack
from tests.tolerances import FLOAT64

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def rows_of(m: int, d: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(m, d, generator=torch.Generator().manual_seed(seed)).to(dtype)


def low(m: int, d: int, rank: int, dtype: torch.dtype) -> torch.Tensor:
    return (rows_of(m, rank) @ rows_of(rank, d, seed=1)).to(dtype)


def back(packed: Packed, rows: torch.Tensor) -> torch.Tensor:
    return unpack(packed.form, packed.tensors, rows.dtype)


def error_of(rows: torch.Tensor, again: torch.Tensor) -> float:
    """Return the relative Frobenius error by numpy, element by element in float64."""
    x, y = rows.double().numpy(), again.double().numpy()
    size = np.sqrt((x * x).sum())
    return float(np.sqrt(((x - y) ** 2).sum()) / size) if size else 0.0


def size(packed: Packed) -> int:
    return sum(one.nbytes for one in packed.tensors.values())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_the_error_of_a_quantised_form_is_its_definition(kind: str, dtype: torch.dtype) -> None:
    rows = rows_of(17, 64, dtype) * torch.logspace(-3, 3, 17)[:, None].to(dtype)
    packed = pack(rows, None, kind)
    assert packed.form == kind
    assert packed.tensors["scale"].dtype == torch.float32
    assert packed.error == pytest.approx(error_of(rows, back(packed, rows)), rel=FLOAT64)
    # int8: half a step of 1/127 of the largest; e4m3 has 3 bits behind the point: 2**-4 of each.
    largest = rows.double().abs().amax(dim=1, keepdim=True)
    bound = largest / 254 if kind == "int8" else rows.double().abs() / 16 + largest * 2**-18
    rounding = rows.double().abs() * 2.0 ** (-8 if dtype != torch.float32 else -22)
    assert bool(((back(packed, rows).double() - rows.double()).abs() <= bound + rounding).all())
    assert back(packed, rows).dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_error_of_a_low_rank_form_is_its_definition(dtype: torch.dtype) -> None:
    rows = rows_of(40, 64, dtype)
    packed = pack(rows, 8, "none")
    assert (packed.form, packed.rank) == ("low_rank", 8)
    assert packed.tensors["us"].shape == (40, 8)
    assert packed.tensors["v"].shape == (8, 64)
    assert packed.error == pytest.approx(error_of(rows, back(packed, rows)), rel=FLOAT64)
    # Eckart and Young: no rows of rank 8 are nearer; ours are as near but for the storing type.
    values = np.linalg.svd(rows.double().numpy(), compute_uv=False)
    best = float(np.sqrt((values[8:] ** 2).sum() / (values**2).sum()))
    slack = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}[dtype]
    assert packed.error == pytest.approx(best, abs=slack)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_low_rank_come_back(dtype: torch.dtype) -> None:
    rows = low(50, 64, 4, dtype)
    packed = pack(rows, 4, "none")
    assert packed.form == "low_rank"
    assert packed.error < {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}[dtype]


@settings(deadline=None, max_examples=60)
@given(m=st.integers(1, 40), d=st.integers(1, 40), k=st.integers(1, 48))
def test_a_rank_is_taken_only_where_it_saves_space(m: int, d: int, k: int) -> None:
    rows = rows_of(m, d)
    packed = pack(rows, k, "none")
    assert saves_space(k, m, d) == (k * (m + d + 1) < m * d)
    assert (packed.form == "low_rank") == saves_space(k, m, d)
    assert size(packed) <= rows.nbytes
    if packed.form == "whole":
        assert packed.why == f"rank {k} of {m} x {d} saves no space"
        assert torch.equal(back(packed, rows), rows)


@settings(deadline=None, max_examples=60)
@given(
    m=st.integers(1, 12),
    d=st.integers(1, 24),
    rank=st.none() | st.integers(1, 4),
    kind=st.sampled_from(["none", "int8", "fp8"]),
    dtype=st.sampled_from(DTYPES),
    scale=st.sampled_from([0.0, 1e-44, 1e-30, 1.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_any_rows_come_back_within_their_error(
    m: int, d: int, rank: int | None, kind: str, dtype: torch.dtype, scale: float, seed: int
) -> None:
    rows = (rows_of(m, d, seed=seed) * scale).to(dtype)
    packed = pack(rows, rank, kind)
    again = back(packed, rows)
    assert (again.dtype, again.shape) == (dtype, (m, d))
    assert size(packed) <= rows.nbytes
    if bool(torch.isfinite(rows).all()):
        assert packed.error == pytest.approx(error_of(rows, again), rel=FLOAT64)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_constant_and_zero_rows(kind: str) -> None:
    rows = torch.cat([torch.full((1, 32), 3.0), torch.zeros(1, 32), torch.full((1, 32), -0.5)])
    packed = quantized(rows, kind)
    assert packed.tensors["scale"][1] == 0
    assert torch.equal(back(packed, rows)[1], torch.zeros(32))
    assert torch.allclose(back(packed, rows), rows, rtol=1e-6)
    zero = pack(torch.zeros(4, 32), None, kind)
    assert (zero.form, zero.error) == (kind, 0.0)
    assert pack(torch.zeros(40, 32), 2, "none").error == 0.0


def test_one_row_has_no_smaller_rank() -> None:
    rows = rows_of(1, 64)
    packed = pack(rows, 1, "none")
    assert (packed.form, packed.why) == ("whole", "rank 1 of 1 x 64 saves no space")
    assert pack(rows, 1, "int8").form == "int8"
    assert pack(rows, 1, "int8").why == "rank 1 of 1 x 64 saves no space"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("rank", "kind"), [(2, "none"), (None, "int8"), (2, "fp8")])
def test_rows_that_are_not_finite_stay_whole(bad: float, rank: int | None, kind: str) -> None:
    rows = rows_of(40, 32)
    rows[3, 5] = bad
    packed = pack(rows, rank, kind)
    assert (packed.form, packed.why) == ("whole", "not all values are finite")
    assert packed.tensors["rows"] is rows or torch.equal(
        packed.tensors["rows"].view(torch.int32), rows.view(torch.int32)
    )


def test_values_at_the_end_of_their_range_do_not_become_infinite() -> None:
    largest = torch.finfo(torch.float32).max
    rows = torch.full((4, 64), largest)
    for kind in ("int8", "fp8"):
        packed = pack(rows, None, kind)
        assert bool(torch.isfinite(back(packed, rows)).all())
    wide = torch.full((40, 40), largest)
    assert bool(torch.isfinite(back(pack(wide, 2, "none"), wide)).all())


def test_singular_values_may_leave_the_range_of_float16() -> None:
    rows = torch.full((64, 64), 6e4, dtype=torch.float16)
    packed = pack(rows, 2, "none")
    assert packed.tensors["us"].dtype == torch.float32
    assert packed.error < 1e-3


def test_whole_rows_are_what_they_were() -> None:
    rows = rows_of(3, 4, torch.bfloat16)
    assert torch.equal(back(pack(rows, None, "none"), rows), rows)
    assert pack(rows, None, "none").why == ""


def test_int8_of_a_narrow_row_saves_nothing() -> None:
    packed = pack(rows_of(3, 2, torch.bfloat16), None, "int8")
    assert (packed.form, packed.why) == ("whole", "int8 saves no space")


def test_low_rank_is_the_decomposition_in_float32() -> None:
    rows = rows_of(40, 30)
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    packed = low_rank(rows, 3)
    assert torch.equal(packed.tensors["us"], left[:, :3] * values[:3])
    assert torch.equal(packed.tensors["v"], right[:3])
