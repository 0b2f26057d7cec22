"""docs/versions.md shows what the table says today."""

from __future__ import annotations

from name_table import read_table
from page_tables import filled
from versions_page import PAGE, tables

from tests.repo.files import ROOT


def test_the_page_is_current() -> None:
    """Where this fails, run `python scripts/versions_page.py`."""
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    table = read_table(ROOT)
    assert page == filled(page, tables(table))
    assert [page.count(one) for one in tables(table).values()] == [1, 1]
