"""What the pages say was measured is what the results hold."""

from __future__ import annotations

import pytest

from benchmarks import kv_page
from benchmarks.table import TABLES, markdown
from tests.repo.files import ROOT


@pytest.mark.parametrize("page", TABLES)
def test_the_table_of_a_page_is_the_measured_one(page: str) -> None:
    assert markdown(TABLES[page]) in (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("table", kv_page.TABLES)
def test_what_kv_policies_bring_and_cost_is_the_measured(table: str) -> None:
    assert kv_page.TABLES[table]() in (ROOT / kv_page.PAGE).read_text(encoding="utf-8")
