"""Every form of the update against the reference in float64."""

from __future__ import annotations

import math

import pytest
import torch

from interv.codegen.bundle import Column
from interv.codegen.kernels.registry import FORMS, runnable
from interv.codegen.slot import records
from tests.kernels.cases import DEVICE, Batch, batch, bits, check, truth, unit_bank
from tests.kernels.columns import random_columns
from tests.tolerances import FLOAT32

RUNNABLE = runnable(DEVICE)
DTYPES = [
    (torch.float32, None),
    (torch.float32, torch.float32),
    (torch.bfloat16, None),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
    (torch.float16, None),
    (torch.float16, torch.float16),
    (torch.float16, torch.float32),
]
forms = pytest.mark.parametrize("form", RUNNABLE)


def _name(dtypes: tuple[torch.dtype, torch.dtype | None]) -> str:
    return "+".join("none" if one is None else str(one).removeprefix("torch.") for one in dtypes)


def _one_slot(columns: list[Column], tokens: int = 4, hidden_size: int = 100) -> Batch:
    """Make a batch whose every token has the one slot and every selector bit."""
    made = batch(hidden_size, tokens, [columns], unit_bank(6, hidden_size))
    made.tensors.write(0, records(columns))
    made.slot[:tokens], made.mask[:tokens] = 0, -1
    return made


@forms
@pytest.mark.parametrize("dtypes", DTYPES, ids=_name)
@pytest.mark.parametrize("tokens", [1, 3, 17])
@pytest.mark.parametrize("hidden_size", [63, 100, 576, 1000])
def test_equals_the_reference(
    hidden_size: int, tokens: int, dtypes: tuple[torch.dtype, torch.dtype | None], form: str
) -> None:
    # A slot for every number of columns from 0 to 16, so that programs of all sizes meet.
    columns = [random_columns(count, 7, seed=tokens) for count in range(17)]
    made = batch(hidden_size, tokens, columns, unit_bank(7, hidden_size), *dtypes, seed=hidden_size)
    check(made, form)


@forms
@pytest.mark.parametrize("count", range(17))
def test_equals_the_reference_with_any_number_of_columns(count: int, form: str) -> None:
    made = batch(100, 5, [random_columns(count, 7, seed=3)], unit_bank(7, 100), seed=count)
    made.slot[:5] = 0
    check(made, form)


@forms
def test_holds_64_columns_that_see_each_other(form: str) -> None:
    columns = [
        Column(j % 20, (j + 7) % 20, beta=-0.25, selector=j, sees=(1 << j) - 1) for j in range(64)
    ]
    made = batch(576, 6, [columns, columns[:63]], unit_bank(20, 576))
    for slot, program in ((0, 2), (1, 1)):
        made.tensors.write(slot, records(columns[: 64 - slot], program))
    made.slot[:6] = torch.tensor([0, 1, 0, 1, 0, 0])
    made.mask[:6] = torch.tensor([-1, -1, -(2**63), -(2**63), 1, 2**62])
    check(made, form)
    # Column 63 and with it the sign bit of the mask: slot 0 has it, slot 1 does not.
    assert made.edited == [0, 1, 4]


@forms
def test_a_token_without_a_slot_or_a_bit_keeps_its_bits_and_is_not_counted(form: str) -> None:
    made = batch(100, 4, [[Column(-1, 0, alpha=1.0, selector=5)], []], unit_bank(2, 100))
    made.slot[:4] = torch.tensor([-1, 0, 0, 1])
    made.mask[:4] = torch.tensor([-1, -1, ~(1 << 5), -1])
    made.hidden[0] = torch.nan
    before = bits(made.hidden)
    made.run(form)
    changed = (bits(made.hidden) != before).any(dim=1).tolist()
    assert changed == [False, True, *[False] * 5]
    assert sum(made.edited) == 1


@forms
@pytest.mark.parametrize(
    "column",
    [
        Column(-1, 0, alpha=0.0),
        Column(0, 0, strength=0.0, low=0.0, high=0.0),
        Column(0, 0, beta=-0.0),
        Column(0, 0, strength=1.0),
        Column(0, 0, strength=1.0, low=-1e30, high=1e30),
        Column(0, 0, strength=1.0, low=-math.inf, high=1e30),
    ],
    ids=["scale 0", "strength 0", "ablate 0", "no bounds", "wide bounds", "half open"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_idle_edit_writes_nothing(dtype: torch.dtype, column: Column, form: str) -> None:
    made = batch(100, 4, [[column]], unit_bank(2, 100), dtype, dtype)
    made.slot[:4], made.mask[:4] = 0, -1
    made.hidden[1] = -0.0
    before = bits(made.hidden)
    made.run(form)
    assert torch.equal(bits(made.hidden), before)
    assert made.edited == [0, 0, 0]


@forms
@pytest.mark.parametrize(("low", "high"), [(-math.inf, -9.0), (9.0, math.inf), (0.25, 0.25)])
def test_a_cap_lands_on_its_bound(low: float, high: float, form: str) -> None:
    made = _one_slot([Column(3, 3, strength=1.0, low=low, high=high)])
    expected = truth(made)
    made.run(form)
    read = made.hidden[:4] @ made.tensors.bank[3]
    bound = torch.full((4,), low if math.isfinite(low) else high)
    assert (read - bound).abs().max() <= expected.slack.max()


@forms
@pytest.mark.parametrize(("sees", "reads"), [(0b00, 0.0), (0b01, 2.0), (0b10, 3.0), (0b11, 5.0)])
def test_a_column_reads_exactly_the_columns_that_it_sees(
    sees: int, reads: float, form: str
) -> None:
    bank = unit_bank(2, 64)
    adds = [Column(-1, 0, alpha=2.0), Column(-1, 0, alpha=3.0)]
    made = batch(64, 2, [[*adds, Column(0, 1, beta=1.0, sees=sees)]], bank)
    made.hidden[:2], made.slot[:2], made.mask[:2] = 0.0, 0, 1
    made.run(form)
    expected = 5.0 * bank[0] + reads * bank[1]
    assert (made.hidden[:2] - torch.from_numpy(expected)).abs().max() <= 5 * FLOAT32


@forms
def test_a_column_does_not_see_one_that_is_off(form: str) -> None:
    columns = [
        Column(-1, 0, alpha=2.0, selector=1),
        Column(0, 0, beta=-1.0, selector=0, sees=1),
    ]
    made = batch(64, 2, [columns], unit_bank(1, 64))
    made.slot[:2], made.mask[:2] = 0, torch.tensor([0b01, 0b11])
    check(made, form)


@forms
def test_a_slot_that_is_written_again_forgets_what_it_was(form: str) -> None:
    made = _one_slot([Column(-1, 0, alpha=1.0), Column(1, 1, beta=-1.0, sees=1)])
    # Twice a number is exact, so that rounding the product or not makes no difference.
    made.tensors.write(0, records([Column(-1, 2, alpha=2.0)]))
    before = made.hidden[:4].clone()
    made.run(form)
    assert torch.equal(made.hidden[:4], before + 2.0 * made.tensors.bank[2])
    made.tensors.write(0, records([]))
    before = bits(made.hidden)
    made.run(form)
    assert torch.equal(bits(made.hidden), before)


@forms
def test_a_row_counts_once_for_each_program_that_changed_it(form: str) -> None:
    programs = [(1, Column(-1, 0, alpha=1.0)), (1, Column(-1, 1, alpha=1.0, selector=1))]
    programs += [(2, Column(-1, 2, alpha=0.0)), (0, Column(-1, 3, alpha=1.0, selector=2))]
    made = batch(100, 4, [[column for _, column in programs]], unit_bank(6, 100))
    columns = records([column for _, column in programs])
    columns["program"] = [program for program, _ in programs]
    made.tensors.write(0, columns)
    made.slot[:4], made.mask[:4] = 0, torch.tensor([1, 3, 4, 8])
    made.step.seat[:4] = torch.tensor([0, 1, 1, 0])
    made.run(form)
    assert made.edited == [1, 2, 0]
    assert made.counts.seats.tolist() == [[0, 1, 0], [1, 1, 0]]


@forms
def test_a_column_gives_way_where_another_selector_holds(form: str) -> None:
    made = batch(100, 4, [[Column(-1, 0, alpha=1.0)]], unit_bank(6, 100))
    columns = records([Column(-1, 0, alpha=1.0)])
    columns["unless"] = -(2**63) | 4
    made.tensors.write(0, columns)
    made.slot[:4], made.mask[:4] = 0, torch.tensor([1, 5, 1 - 2**63, 3])
    before = bits(made.hidden)
    made.run(form)
    changed = (bits(made.hidden) != before).any(dim=1).tolist()
    assert changed[:4] == [True, False, False, True]
    assert sum(made.edited) == 2


@forms
def test_not_a_number_in_a_stream_stays_in_its_row(form: str) -> None:
    made = _one_slot([Column(0, 0, strength=1.0, low=-1.0, high=1.0)])
    made.hidden[2, 7] = torch.nan
    made.run(form)
    rows = made.hidden[:4].isnan()
    assert rows[2].all()
    assert not rows[[0, 1, 3]].any()


# Torch takes any layout.
@pytest.mark.parametrize("form", [form for form in RUNNABLE if form != "torch"])
def test_a_wrong_layout_is_refused(form: str) -> None:
    made = _one_slot([Column(-1, 0, alpha=1.0)])
    square = torch.zeros(100, 100)
    update = FORMS[form](made.tensors, made.step, made.counts, torch.float32)
    with pytest.raises(AssertionError):
        update(square[:4].T[:4], None)
    with pytest.raises(AssertionError):
        update(square[:4], square[:3])
    with pytest.raises(AssertionError):
        update(square[:8], None)  # more tokens than there are slots of tokens
