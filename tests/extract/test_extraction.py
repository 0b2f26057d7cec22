"""Scores of layers, exactly; which layers are best; activations that make no direction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from interv.errors import IntervError
from interv.extract import Extraction, LayerResult, Split, extract_directions
from interv.extract.table import layer_table, next_step, summary

SPLIT = Split((0, 1), (2, 3))


def activations(*layers: tuple[list[float], list[float]]) -> np.ndarray:
    """Return [2, N, L, 2] whose first number is given, by layer, and whose second is 7."""
    first = np.array(layers, np.float32)  # [L, 2, N]
    return np.stack([first, np.full_like(first, 7)], -1).transpose(1, 2, 0, 3)


def result(layer: int, positive: list[float], negative: list[float]) -> LayerResult:
    return LayerResult(layer, np.ones(2), 0.0, np.array(positive), np.array(negative))


def test_scores_are_those_of_the_held_out_pairs() -> None:
    found = extract_directions(
        activations(([4, 6, 5, 1], [0, 2, 1, 4])), [9], SPLIT, "mean"
    ).results[0]
    assert found.layer == 9
    assert found.direction.tolist() == [4, 0]
    assert found.norm == 4
    assert found.threshold == 3
    assert found.positive.tolist() == [5, 1]
    assert found.negative.tolist() == [1, 4]
    assert found.accuracy == 0.5
    # Both sides: means 3 and 2.5, variances 8 and 4.5.
    assert found.separation == pytest.approx(0.5 / math.sqrt(6.25), rel=1e-15)
    assert found.next_cosine is None


def test_a_text_on_the_threshold_is_not_told_apart() -> None:
    assert result(0, [0.0, 1.0], [0.0, -1.0]).accuracy == 0.5


def test_without_held_out_pairs_there_are_no_scores() -> None:
    found = extract_directions(activations(([4, 6], [0, 2])), [0], Split((0, 1), ()), "mean")
    only = found.results[0]
    assert (only.accuracy, only.separation) == (None, None)
    assert (found.best, found.good) == (None, ())
    assert summary(found, "post_block") == (
        "2 pairs used, none held out: nothing tells how good these directions are"
    )


def test_texts_that_do_not_vary_have_an_accuracy_and_no_separation() -> None:
    only = result(0, [1.0, 1.0], [-1.0, -1.0])
    assert (only.accuracy, only.separation) == (1.0, None)


def test_cosines_are_with_the_next_layer_that_was_asked_for() -> None:
    rows = np.zeros((2, 4, 3, 2), np.float32)
    rows[0, :, :] = [[1, 0], [1, 1], [-2, 0]]
    rows[0, :, :, 0] += np.array([[0.5], [-0.5], [0.25], [-0.25]])
    found = extract_directions(rows, [2, 5, 9], SPLIT, "mean")
    assert [one.layer for one in found.results] == [2, 5, 9]
    assert found.results[0].next_cosine == pytest.approx(math.sqrt(0.5))
    assert found.results[1].next_cosine == pytest.approx(-math.sqrt(0.5))
    assert found.results[2].next_cosine is None


def test_unit_changes_lengths_and_no_score() -> None:
    rows = activations(([4, 6, 5, 1], [0, 2, 1, 4]))
    one, unit = (
        extract_directions(rows, [9], SPLIT, "mean", unit=unit).results[0] for unit in (False, True)
    )
    assert unit.direction.tolist() == [1, 0]
    assert (unit.accuracy, unit.separation) == (one.accuracy, one.separation)


def test_the_best_layer_is_the_most_accurate_then_the_most_separated() -> None:
    wide, near, wrong = [2.0, 3.0], [1.6, 2.6], [-2.0, 50.0]
    results = (
        result(0, wrong, [-1.0, -2.0]),
        result(1, wide, [-2.0, -3.0]),
        result(2, near, [-2.0, -3.0]),
        result(3, [0.1, 1.1], [-0.1, -1.1]),
    )
    found = Extraction(results, 8, 2)
    assert found.best is results[1]
    assert found.good == (1, 2)
    assert summary(found, "pre_attn") == (
        "8 pairs used, 2 pairs held out, which are few to judge by\n"
        "texts held out are told apart best at pre_attn[1, 2]: 100% of them at pre_attn[1]"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_not_finite(value: float) -> None:
    rows = activations(*[([4, 6, 5, 1], [0, 2, 1, 4])] * 5)
    rows[1, 3, 1:4, 0] = value
    with pytest.raises(IntervError) as caught:
        extract_directions(rows, [4, 5, 6, 7, 20], SPLIT, "mean")
    assert str(caught.value) == "error[E286]: activations are NaN or infinite at layers 5..7"


@pytest.mark.parametrize("method", ["mean", "pca", "probe"])
def test_sides_that_are_the_same(method: str) -> None:
    same = [4.0, 6, 5, 1]
    rows = activations((same, same), ([4, 6, 5, 1], [0, 2, 1, 4]))
    with pytest.raises(IntervError) as caught:
        extract_directions(rows, [0, 1], SPLIT, method)
    assert str(caught.value) == (
        "error[E286]: positives and negatives are the same at layers 0\n"
        "  = a token sees the texts before it from its first attention on\n"
        "  = leave these layers out (--layers), or take --position mean"
    )


def test_the_table_has_a_row_a_layer() -> None:
    from rich.console import Console

    results = (
        LayerResult(3, np.array([3.0, 4]), 0.0, np.array([2.0, 3]), np.array([-2.0, -3]), 0.5),
        result(4, [1.0, -1.0], [-2.0, -3.0]),
    )
    console = Console(width=100, record=True, file=None, quiet=True)
    console.quiet = False
    with console.capture() as shown:
        console.print(layer_table(Extraction(results, 8, 2), ascii_only=True))
    lines = [line.split() for line in shown.get().splitlines() if line.strip()]
    assert lines[0] == ["layer", "accuracy", "separation", "norm", "next", "layer"]
    assert lines[2] == ["3", "100%", "7.07", "=" * 16, "5", "0.500", "best"]
    assert lines[3] == ["4", "75%", "2.24", "=" * 5, "1.414", "–"]


@pytest.mark.parametrize(
    ("spoilt", "steered"), [((), "4..8"), ((6, 7), "4, 5, 8"), (range(4, 9), "0..3, 9..12")]
)
def test_the_next_step_is_in_the_middle(spoilt: Sequence[int], steered: str) -> None:
    """Layer 0 separates most."""
    results = tuple(
        result(i, [20.0 - i, 3.0], [-2.0, -3.0 if i not in spoilt else 3.0]) for i in range(13)
    )
    text = next_step("joy", "joy.gguf", "post_block", Extraction(results, 8, 2), unit=False)
    assert f"steer joy at post_block[{steered}] scale 0." in text


def test_the_next_step_is_a_document() -> None:
    from interv.load import load_text

    found = Extraction((result(1, [2.0, 3.0], [-2.0, -3.0]),), 8, 2)
    text = next_step("joy", "joy.gguf", "post_block", found, unit=False)
    assert text == (
        "interv 1\n"
        'vector joy = "joy.gguf"\n'
        "program joy { steer joy at post_block[1] scale 1 }\n"
        "default joy"
    )
    assert load_text(text).spec.default == "joy"


@pytest.mark.parametrize(
    ("count", "scale", "unit"), [(1, "1", "5"), (2, "1", "5"), (30, "0.2", "1")]
)
def test_the_next_step_is_weaker_the_more_layers_add_up(count: int, scale: str, unit: str) -> None:
    """The sides are 5 apart, which a direction of length 1 does not say."""
    results = tuple(result(i, [2.0, 3.0], [-2.0, -3.0]) for i in range(count))
    found = Extraction(results, 8, 2)
    for expected, is_unit in ((scale, False), (unit, True)):
        text = next_step("joy", "joy.gguf", "post_block", found, unit=is_unit)
        assert f" scale {expected} }}" in text
