"""The three methods on activations whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from interv.extract.methods import (
    METHODS,
    RIDGE,
    Array,
    difference_of_means,
    direction_of,
    logistic_probe,
    principal_component,
)

EXACT = 1e-12


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def planted(count: int, width: int, seed: int, noise: float = 0.05) -> tuple[Array, Array, Array]:
    """Return a direction, and pairs that differ by it and by small noise, on large shared parts."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=width)
    direction *= 2 / np.linalg.norm(direction)
    shared = 3 * rng.normal(size=(count, width))
    positive = shared + direction / 2 + noise * rng.normal(size=(count, width)) / np.sqrt(width)
    negative = shared - direction / 2 + noise * rng.normal(size=(count, width)) / np.sqrt(width)
    return direction, positive, negative


@pytest.mark.parametrize("method", ["mean", "pca"])
@pytest.mark.parametrize("seed", range(5))
def test_a_planted_direction_is_found(method: str, seed: int) -> None:
    direction, positive, negative = planted(40, 96, seed)
    found = direction_of(method, positive, negative)
    assert cosine(found, direction) > 0.999
    assert np.linalg.norm(found) == pytest.approx(2, rel=1e-2)


@pytest.mark.parametrize("seed", range(5))
def test_the_probe_finds_a_planted_direction_in_isotropic_noise(seed: int) -> None:
    """Many texts, so that what the noise adds to the boundary has averaged out."""
    rng = np.random.default_rng(seed)
    direction = np.zeros(16)
    direction[3] = 1.0
    positive = rng.normal(size=(20_000, 16)) + direction
    negative = rng.normal(size=(20_000, 16)) - direction
    assert cosine(direction_of("probe", positive, negative), direction) > 0.999


def test_the_mean_is_the_difference_of_means() -> None:
    positive = np.array([[1.0, 2.0], [3.0, 6.0]])
    negative = np.array([[0.0, 1.0], [0.0, 1.0]])
    assert difference_of_means(positive, negative).tolist() == [2.0, 3.0]
    assert direction_of("mean", positive, negative) == pytest.approx([2.0, 3.0], rel=EXACT)


def test_pca_keeps_what_all_pairs_have_in_common() -> None:
    """Centred differences would have none of it: the same step in every pair is what is wanted."""
    rng = np.random.default_rng(0)
    positive = rng.normal(size=(10, 6))
    negative = positive - np.array([0, 0, 5.0, 0, 0, 0])
    assert direction_of("pca", positive, negative) == pytest.approx([0, 0, 5, 0, 0, 0], abs=EXACT)


def test_pca_is_the_component_of_states_around_their_middle() -> None:
    """The definition itself, by the covariance of all states with each pair's middle taken away."""
    rng = np.random.default_rng(1)
    positive, negative = rng.normal(size=(12, 7)) + 0.3, rng.normal(size=(12, 7))
    middle = (positive + negative) / 2
    states = np.concatenate([positive - middle, negative - middle])
    assert np.abs(states.mean(0)).max() < EXACT
    _, axes = np.linalg.eigh(states.T @ states)
    found = principal_component(positive, negative)
    assert abs(cosine(found, axes[:, -1])) == pytest.approx(1, abs=1e-9)


def test_the_probe_is_at_the_minimum_of_its_cost() -> None:
    """The gradient of the full problem, of all H weights, vanishes at what was found."""
    rng = np.random.default_rng(2)
    positive, negative = rng.normal(size=(15, 50)) + 0.4, 2 * rng.normal(size=(15, 50))
    rows = np.concatenate([positive, negative])
    features = (rows - rows.mean(0)) / rows.std(0)
    signs = np.repeat([1.0, -1.0], 15)
    weights = logistic_probe(positive, negative) * rows.std(0)

    # The intercept is the one number that is not returned: where its own gradient vanishes.
    low, high = -20.0, 20.0
    for _ in range(200):
        middle = (low + high) / 2
        wrong = 1 / (1 + np.exp(signs * (features @ weights + middle)))
        low, high = (middle, high) if (signs * wrong).sum() > 0 else (low, middle)
    gradient = RIDGE * weights - features.T @ (signs * wrong)
    assert np.abs(gradient).max() < 1e-7
    assert np.abs(weights).max() > 0.01


def test_the_probe_takes_separable_texts_and_features_that_do_not_vary() -> None:
    positive = np.array([[5.0, 1e9, 0.1], [6.0, 1e9, 0.1], [7.0, 1e9, 0.1]])
    negative = -positive + np.array([0.0, 2e9, 0.2])
    found = logistic_probe(positive, negative)
    assert found[0] > 0
    assert found[1:].tolist() == [0, 0]


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(METHODS)), st.integers(2, 12), st.integers(1, 20), st.integers(0, 99))
def test_scale_one_moves_the_negatives_mean_to_the_positives(
    method: str, count: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    positive, negative = rng.normal(size=(2, count, width))
    found = direction_of(method, positive, negative)
    size = np.linalg.norm(found)
    gap = (positive.mean(0) - negative.mean(0)) @ (found / size)
    assert gap == pytest.approx(size, rel=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(sorted(METHODS)), st.integers(0, 99))
def test_exchanged_sides_give_the_opposite(method: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive, negative = rng.normal(size=(2, 8, 5))
    found = direction_of(method, positive, negative)
    assert direction_of(method, negative, positive) == pytest.approx(-found, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_a_rotation_of_the_stream_rotates_mean_and_component(method: str) -> None:
    """Not the probe's: its features are standardised one by one."""
    rng = np.random.default_rng(3)
    positive, negative = rng.normal(size=(9, 6)) + 0.5, rng.normal(size=(9, 6))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    found = direction_of(method, positive @ turn, negative @ turn)
    same = np.allclose(found, direction_of(method, positive, negative) @ turn, atol=1e-9)
    assert same == (method != "probe")


@pytest.mark.parametrize("method", METHODS)
def test_equal_sides_have_no_direction(method: str) -> None:
    rows = np.random.default_rng(4).normal(size=(6, 5))
    assert direction_of(method, rows, rows.copy()).tolist() == [0] * 5
