"""What the page says was measured is what the results hold."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.steering import RESULTS, Point, markdown, monotone_range
from interv.vectors import read_vectors

ROOT = Path(__file__).parents[2]
SAVED = RESULTS / "steering.json"


def test_the_table_of_the_page_is_the_measured_one() -> None:
    assert markdown(SAVED) in (ROOT / "docs" / "extract.md").read_text(encoding="utf-8")


def test_it_was_measured_with_the_vector_that_is_here() -> None:
    digest = read_vectors(ROOT / "examples" / "vectors" / "joy.gguf").digest
    assert json.loads(SAVED.read_text())["work"]["vector"] == f"sha256:{digest}"


def test_the_log_odds_rise_where_steering_is_of_use() -> None:
    low, high = json.loads(SAVED.read_text())["monotone"]
    assert low <= -3
    assert high >= 3


def points(*odds: float) -> list[Point]:
    middle = len(odds) // 2
    return [Point(float(i - middle), x, (x, x), 0.0) for i, x in enumerate(odds)]


def test_the_range_is_the_one_around_nothing() -> None:
    assert monotone_range(points(0, 1, 2, 3, 4)) == (-2, 2)
    assert monotone_range(points(2, 1, 2, 3, 3)) == (-1, 1)
    assert monotone_range(points(0, 5, 2, 1, 7)) == (0, 0)


def test_the_plot_is_small() -> None:
    assert (ROOT / "docs" / "steering.png").stat().st_size < 60_000
