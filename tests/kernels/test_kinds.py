"""Laws of every kind of column, in every form of the update."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from interv.codegen.bundle import Column
from interv.codegen.kernels.registry import runnable
from interv.codegen.slot import records
from interv.passes.graph.column import Kind
from interv.passes.placing.plan import GATES
from tests.kernels.cases import DEVICE, Batch, batch, bits, check, truth, unit_bank
from tests.kernels.columns import NAMES, random_columns
from tests.tolerances import FLOAT32

forms = pytest.mark.parametrize("form", runnable(DEVICE))
TOKENS, ROWS = 4, 6
# Sharp enough that the weight is exactly 0 or 1, whatever a token reads.
OPEN = Column(0, -1, kind=Kind.GATE, alpha=1e30, low=-1e3)
SHUT = replace(OPEN, low=1e3)
ADD = Column(-1, 1, alpha=2.5)
CAP = Column(1, 1, strength=0.75, low=0.5, high=0.75)
KEEP_NORM = Column(-1, 2, kind=Kind.KEEP_NORM, alpha=3.0)
REPLACE = Column(-1, 3, kind=Kind.REPLACE, alpha=-7.0, strength=1.0)
GATED = pytest.mark.parametrize(
    "edit", [ADD, CAP, KEEP_NORM, REPLACE], ids=["steer", "cap", "keep norm", "replace"]
)


def one_slot(
    columns: list[Column],
    dtype: torch.dtype = torch.float32,
    carried: torch.dtype | None = None,
    hidden_size: int = 100,
) -> Batch:
    """Make a batch whose every token has the one slot and every selector bit."""
    bank = unit_bank(ROWS, hidden_size)
    made = batch(hidden_size, TOKENS, [columns], bank, dtype, carried)
    made.tensors.write(0, records(columns))
    made.slot[:TOKENS], made.mask[:TOKENS] = 0, -1
    return made


def after(columns: list[Column], form: str, dtype: torch.dtype = torch.float32) -> Batch:
    made = one_slot(columns, dtype)
    made.run(form)
    return made


def block(*caps: Column) -> list[Column]:
    """Let caps be solved together."""
    everyone = (1 << len(caps)) - 1
    return [
        replace(
            one,
            kind=Kind.JOINT,
            sees=everyone ^ (1 << i),
            block=0 if i else len(caps),
            strength=1.0,
        )
        for i, one in enumerate(caps)
    ]


@forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_many_of_one_kind(name: str, dtype: torch.dtype, form: str) -> None:
    gate = () if name == "gate" else ("gate",)
    columns = [random_columns(count, 7, 5, (name, *gate)) for count in (1, 3, 8, 16)]
    check(batch(100, 12, columns, unit_bank(7, 100), dtype, dtype, seed=5), form)


@forms
@pytest.mark.parametrize("carried", [None, torch.float32], ids=["single", "pair"])
def test_keeping_the_norm_keeps_it(carried: torch.dtype | None, form: str) -> None:
    made = one_slot([KEEP_NORM], carried=carried, hidden_size=576)
    rest = torch.zeros(()) if made.residual is None else made.residual[:TOKENS]
    before = made.hidden[:TOKENS] + rest
    made.run(form)
    stream = made.hidden[:TOKENS] + rest
    assert (stream.norm(dim=1) / before.norm(dim=1) - 1).abs().max() <= FLOAT32
    cosine = torch.cosine_similarity(stream, before + 3.0 * made.tensors.bank[2])
    assert (cosine - 1).abs().max() <= FLOAT32
    assert sum(made.edited) == TOKENS


@forms
def test_keeping_the_norm_of_nothing_is_nothing(form: str) -> None:
    made = one_slot([KEEP_NORM])
    made.hidden[:TOKENS] = 0
    made.run(form)
    assert torch.equal(made.hidden[:TOKENS], torch.zeros(TOKENS, 100))


@forms
@pytest.mark.parametrize(
    ("columns", "left"),
    [
        ([REPLACE], 0.0),
        ([ADD, replace(REPLACE, sees=0b1)], 0.0),
        ([ADD, replace(KEEP_NORM, sees=0b1), replace(REPLACE, sees=0b11)], 0.0),
        ([ADD, REPLACE], 2.5),
        ([replace(REPLACE, b=4), replace(REPLACE, sees=0b1), replace(ADD, sees=0b11)], 2.5),
    ],
    ids=["alone", "a steer", "a kept norm", "a steer it does not see", "another"],
)
def test_replacing_leaves_the_direction(columns: list[Column], left: float, form: str) -> None:
    made = after(columns, form)
    expected = -7.0 * made.tensors.bank[3] + left * made.tensors.bank[1]
    assert (made.hidden[:TOKENS] - expected).abs().max() <= FLOAT32


@forms
def test_replacing_a_pair_leaves_the_direction_in_its_sum(form: str) -> None:
    made = one_slot([REPLACE], torch.float32, torch.float32)
    made.run(form)
    assert made.residual is not None
    off = made.hidden[:TOKENS] + made.residual[:TOKENS] - -7.0 * made.tensors.bank[3]
    assert off.abs().max() <= FLOAT32


@forms
@GATED
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_open_gate_is_no_gate_bit_for_bit(dtype: torch.dtype, edit: Column, form: str) -> None:
    plain = after([edit], form, dtype)
    gated = after([OPEN, replace(edit, gate=0)], form, dtype)
    assert torch.equal(bits(gated.hidden), bits(plain.hidden))
    assert sum(plain.edited) == sum(gated.edited)


@forms
@GATED
def test_a_shut_gate_leaves_the_bits_and_counts_nothing(edit: Column, form: str) -> None:
    made = one_slot([SHUT, replace(edit, gate=0)])
    made.hidden[1] = -0.0
    before = bits(made.hidden)
    made.run(form)
    assert torch.equal(bits(made.hidden), before)
    assert made.edited == [0, 0, 0]


@forms
@GATED
def test_a_gate_that_is_off_shuts(edit: Column, form: str) -> None:
    made = one_slot([replace(OPEN, selector=5), replace(edit, gate=0)])
    made.mask[:TOKENS] = torch.tensor([1, 33, 1, 33])
    before = bits(made.hidden)
    made.run(form)
    changed = (bits(made.hidden) != before).any(dim=1).tolist()
    assert changed[:TOKENS] == [False, True, False, True]


@forms
def test_a_gate_is_stored_where_it_is_on_and_read_at_a_later_site(form: str) -> None:
    first = one_slot([Column(0, -1, kind=Kind.GATE, alpha=2.0, low=0.25, store=3, selector=5)])
    first.mask[:TOKENS] = torch.tensor([-1, 1, -1, -1])
    before, gates = bits(first.hidden), first.step.gate.clone()
    first.run(form)
    assert torch.equal(bits(first.hidden), before)
    assert first.edited == [0, 0, 0]
    stored = first.step.gate[:TOKENS, 3]
    expected = torch.sigmoid(2.0 * (first.hidden[:TOKENS] @ first.tensors.bank[0] - 0.25))
    on = torch.tensor([True, False, True, True])
    assert (stored - expected)[on].abs().max() <= FLOAT32
    first.step.gate[:, 3] = gates[:, 3]
    assert torch.equal(bits(first.step.gate), bits(gates))
    later = one_slot([replace(ADD, gate=GATES + 3)])
    later.step.gate[:TOKENS, 3] = torch.tensor([0.5, 0.0, 1.0, 0.25])
    start = later.hidden[:TOKENS].clone()
    later.run(form)
    weights = later.step.gate[:TOKENS, 3:4]
    off = later.hidden[:TOKENS] - (start + 2.5 * weights * later.tensors.bank[1])
    assert off.abs().max() <= FLOAT32
    assert sum(later.edited) == TOKENS - 1


@forms
@pytest.mark.parametrize("hidden_size", [63, 576])
def test_joint_caps_all_hold(hidden_size: int, form: str) -> None:
    # Rows 1 and 2 lean on each other, so that one cap undoes the other unless both are solved.
    caps = block(
        Column(1, 1, low=2.0, high=2.0), Column(2, 2, high=-1.0), Column(4, 4, low=-0.5, high=0.5)
    )
    made = one_slot(caps, hidden_size=hidden_size)
    expected = truth(made)
    made.run(form)
    p = made.hidden[:TOKENS] @ made.tensors.bank[[1, 2, 4]].T
    assert (p[:, 0] - 2.0).abs().max() <= 1e-4
    assert p[:, 1].max() <= -1.0 + 1e-4
    assert p[:, 2].abs().max() <= 0.5 + 1e-4
    assert ((made.hidden[:TOKENS] - expected.hidden).abs() <= expected.slack).all()


@forms
def test_joint_caps_that_hold_already_leave_the_bits(form: str) -> None:
    made = one_slot(block(Column(1, 1, low=-1e3), Column(2, 2, high=1e3)))
    before = bits(made.hidden)
    made.run(form)
    assert torch.equal(bits(made.hidden), before)
    assert made.edited == [0, 0, 0]


@forms
def test_columns_behind_a_block_go_on(form: str) -> None:
    columns = [ADD, *block(Column(2, 2, low=1.0, high=1.0), Column(4, 4, high=-1.0))]
    columns[1:] = [replace(one, sees=one.sees << 1 | 1) for one in columns[1:]]
    columns.append(Column(2, 5, beta=1.0, sees=0b111))
    made = one_slot(columns)
    check(made, form)
    # The last column reads where the block has put the stream: at 1.
    alone = one_slot(columns[:3])
    alone.run(form)
    last = made.hidden[:TOKENS] - alone.hidden[:TOKENS]
    assert (last - made.tensors.bank[5]).abs().max() <= 1e-4


@pytest.mark.parametrize("kind", [KEEP_NORM, REPLACE, OPEN, *block(CAP)], ids=lambda c: c.kind.name)
@forms
def test_not_a_number_stays_in_its_row(kind: Column, form: str) -> None:
    made = one_slot([kind, replace(ADD, gate=0 if kind is OPEN else -1)])
    made.hidden[2, 7] = torch.nan
    made.run(form)
    rows = made.hidden[:TOKENS].isnan()
    assert rows[2, 7]
    assert not rows[[0, 1, 3]].any()
