"""docs/roofline.md shows what the model of cost says today."""

from __future__ import annotations

import pytest
from page_tables import filled
from roofline import COLUMNS, MODELS, PAGE, TOKENS, tables

from interv.passes.placing.cost import H200, Machine, cost_of, update_cost
from tests.repo.files import ROOT


def test_the_page_is_current() -> None:
    """Where this fails, run `python scripts/roofline.py`."""
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert page == filled(page, tables())
    for table in tables().values():
        assert page.count(table) == 1


def test_the_tables_have_every_case() -> None:
    cases = [(str(t), str(k)) for t in TOKENS for k in COLUMNS]
    rows = [row.split(" | ") for row in tables()["update"].splitlines()[2:]]
    assert [(row[0].removeprefix("| "), row[1]) for row in rows] == cases
    assert len(tables()["share"].splitlines()) == 2 + len(cases)


def test_the_bytes_of_one_update() -> None:
    one = update_cost(64, 4096, 4, 4, H200)
    assert (one.read_bytes, one.written_bytes, one.bank_bytes) == (
        64 * 2 * 4096 * 2,
        64 * 4096 * 2,
        4 * 4096 * 4,
    )
    assert one.floor_us == (one.stream_bytes + one.bank_bytes) / 4.3e6
    assert one.predicted_us == one.kernel_us + 1


@pytest.mark.parametrize("tokens", [1, 7, 64, 131, 132, 133, 8192])
def test_a_prediction_is_never_below_its_floor_and_grows(tokens: int) -> None:
    costs = [update_cost(tokens, 4096, k, k, H200) for k in range(1, 33)]
    assert all(one.kernel_us >= one.floor_us for one in costs)
    times = [one.kernel_us for one in costs]
    assert times == sorted(times)
    assert costs[3].kernel_us <= update_cost(2 * tokens, 4096, 4, 4, H200).kernel_us


def test_a_machine_of_memory_and_launches_only_knows_no_more() -> None:
    machine = Machine(tokens=16)
    found = cost_of([(3, 3)] * 9, 576, machine)
    moved = found.stream_bytes + found.bank_bytes
    assert (found.stream_bytes, found.bank_bytes) == (9 * 3 * 576 * 2 * 16, 9 * 3 * 576 * 4)
    assert found.predicted_us == pytest.approx(9 * 2.0 + moved / 2e6, rel=1e-12)
    nothing = cost_of([], 576, machine)
    assert (nothing.launches, nothing.stream_bytes, nothing.predicted_us) == (0, 0, 0)


def test_a_decode_step_reads_weights_and_caches_once() -> None:
    small, large = MODELS
    assert small.step_us(1) == (2 * 1.54e9 + 1024 * 2 * 2 * 28 * 2 * 128) / 4.3e6
    assert large.kv_bytes == 131072
    assert large.step_us(8192) == 2 * 8.03e9 * 8192 / 990e6
