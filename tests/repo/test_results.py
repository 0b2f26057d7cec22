"""The numbers in README are those of the results beside the benchmark."""

from __future__ import annotations

from pathlib import Path

from benchmarks.table import markdown

README = Path(__file__).parents[2] / "README.md"


def test_the_table_in_readme_is_the_measured_one() -> None:
    assert markdown() in README.read_text(encoding="utf-8")
