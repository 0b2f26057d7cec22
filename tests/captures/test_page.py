"""docs/captures.md shows what was measured, and made rows are as they are said to be."""

from __future__ import annotations

import pytest
import torch

from benchmarks.capture_files import markdown, stream
from tests.repo.files import ROOT


def test_the_tables_of_the_page_are_the_measured_ones() -> None:
    """Where this fails, put what `benchmarks.capture_files.markdown` returns into the page."""
    assert markdown() in (ROOT / "docs/captures.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("fall", [0.0, 1.0])
def test_the_singular_values_of_made_rows_fall_as_said(fall: float) -> None:
    rows = stream(96, 64, fall).float()
    if fall:
        # A shared mean and three large coordinates come on top: the first values are theirs.
        assert rows[:, :3].norm() > 10 * rows[:, 3:6].norm()
        return
    values = torch.linalg.svdvals(rows)
    assert float(values[0] / values[-1]) == pytest.approx(1, abs=0.05)
