"""Caps solved together: against every active set, tried in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from interv.passes.caps.bounds import Bound, Note, Unsolvable
from interv.passes.caps.halfspaces import DEPENDENT, Array, impossible, sweep_rate
from interv.passes.caps.joint_problem import SLOWEST, Solved, solve
from interv.passes.graph.ops import cap, joint

# All bounds hold to this, relative to the numbers that take part, and the change is as small.
HOLDS = 1e-4
SMALLEST = 1e-6


@dataclass(frozen=True)
class Caps:
    """Unit rows `[K, H]` and the bounds of their dots, `[K]`."""

    rows: Array
    lows: Array
    highs: Array

    def take(self, kept: Sequence[int]) -> Caps:
        return Caps(self.rows[list(kept)], self.lows[list(kept)], self.highs[list(kept)])

    def bounds(self) -> list[Bound]:
        numbers = zip(self.rows, self.lows.tolist(), self.highs.tolist(), strict=True)
        return [Bound(*one, of=(j,)) for j, one in enumerate(numbers)]

    def missed(self, h: Array) -> Array:
        """Return by how much streams `[T, H]` miss the bounds, `[T]`."""
        p = h @ self.rows.T
        return np.maximum(np.maximum(self.lows - p, p - self.highs), 0.0).max(1)


def nearest(caps: Caps, h: Array) -> tuple[Array, Array]:
    """Return the smallest change of each stream `[T, H]`, and its size `[T]`, inf where none.

    Every bound is left alone, met at its lower end or at its upper one: of all 3^K ways the
    smallest change that meets the rest is the answer.
    """
    best, size = np.zeros_like(h), np.full(len(h), np.inf)
    slack = 1e-6 * (1 + np.abs(h).max())
    both = zip(caps.lows.tolist(), caps.highs.tolist(), strict=True)
    ends = ([-np.inf, *{low, high} - {-np.inf, np.inf}] for low, high in both)
    for values in product(*ends):
        held = [j for j, value in enumerate(values) if value > -np.inf]
        rows, targets = caps.rows[held], np.array([values[j] for j in held])
        change = (targets - h @ rows.T) @ np.linalg.pinv(rows, rcond=DEPENDENT).T
        norm = np.linalg.norm(change, axis=1)
        better = (caps.missed(h + change) <= slack) & (norm < size)
        best[better], size[better] = change[better], norm[better]
    return best, size


def applied(solved: Solved, h: Array, dtype: torch.dtype = torch.float64) -> Array:
    """Return streams `[T, H]` after what was solved."""
    out, mask = torch.from_numpy(h).to(dtype), torch.ones(len(h), dtype=torch.bool)
    for one in solved.caps:
        out = cap(out, torch.from_numpy(one.row), one.low, one.high, 1.0, mask)
    for block in solved.blocks:
        rows = [torch.from_numpy(one.row) for one in block]
        out = joint(out, rows, [one.low for one in block], [one.high for one in block], mask)
    return out.double().numpy()


def solved_or_refused(caps: Caps) -> Solved | Unsolvable:
    try:
        return solve(caps.bounds())
    except Unsolvable as found:
        return found


def check(caps: Caps, h: Array) -> str:
    """Compare what is solved with the oracle; return what became of it."""
    _, size = nearest(caps, h)
    solved = solved_or_refused(caps)
    if isinstance(solved, Unsolvable):
        if solved.why == "infeasible":
            assert_minimal(caps, solved.members)
        else:
            assert np.isfinite(size).all()
        return solved.why
    assert np.isfinite(size).all()
    after = applied(solved, h)
    scale = 1 + np.abs(h @ caps.rows.T).max(1)
    assert (caps.missed(after) <= HOLDS * scale).all()
    assert (np.abs(np.linalg.norm(after - h, axis=1) - size) <= SMALLEST * (size + scale)).all()
    return "solved"


def assert_minimal(caps: Caps, members: Sequence[int]) -> None:
    here = np.zeros((1, caps.rows.shape[1]))
    assert np.isinf(nearest(caps.take(members), here)[1]).all()
    for one in members:
        rest = [j for j in members if j != one]
        assert np.isfinite(nearest(caps.take(rest), here)[1]).all()


whole = st.integers(-2, 2)


@st.composite
def whole_caps(draw: st.DrawFn) -> Caps:
    """Make up to 5 caps of few numbers, so that directions meet, oppose and depend often."""
    width = draw(st.integers(2, 4))
    row = st.lists(whole, min_size=width, max_size=width).filter(any)
    rows = np.array(draw(st.lists(row, min_size=1, max_size=5)), dtype=np.float64)
    ends = [sorted((draw(whole), draw(whole))) for _ in rows]
    lows, highs = (np.array(side, dtype=np.float64) for side in zip(*ends, strict=True))
    norms = np.linalg.norm(rows, axis=1)
    is_open = np.array([draw(st.sampled_from("  lh")) for _ in rows])
    lows = np.where(is_open == "l", -np.inf, lows / norms)
    return Caps(rows / norms[:, None], lows, np.where(is_open == "h", np.inf, highs / norms))


@given(whole_caps(), st.integers(0, 99))
@settings(deadline=None)
def test_whole_numbered_caps_are_solved_or_refused_for_a_reason(caps: Caps, seed: int) -> None:
    rng = np.random.default_rng(seed)
    h = rng.normal(size=(4, caps.rows.shape[1])) * [[0.5], [2], [10], [100]]
    check(caps, h)


def skewed(rng: np.random.Generator, count: int, width: int, cosine: float) -> Array:
    """Return unit rows that all have about this cosine with each other."""
    part = rng.normal(size=width)
    part /= np.linalg.norm(part)
    rest = rng.normal(size=(count, width))
    rest -= np.outer(rest @ part, part)
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    return np.sqrt(cosine) * part + np.sqrt(1 - cosine) * rest


def random_caps(rng: np.random.Generator, rows: Array) -> Caps:
    lows = rng.normal(size=len(rows))
    highs = lows + np.where(rng.random(len(rows)) < 0.3, 0, rng.uniform(0.1, 3, len(rows)))
    is_open = (rng.random(len(rows)) < 0.3) & (lows < highs)
    left = rng.random(len(rows)) < 0.5
    return Caps(
        rows,
        np.where(is_open & left, -np.inf, lows),
        np.where(is_open & ~left, np.inf, highs),
    )


@pytest.mark.parametrize("cosine", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_skew_directions(cosine: float, count: int) -> None:
    rng = np.random.default_rng(count)
    for _ in range(8):
        caps = random_caps(rng, skewed(rng, count, 12, cosine))
        h = rng.normal(size=(12, 12)) * rng.choice([1, 30], size=(12, 1))
        assert check(caps, h) == "solved"


def test_the_slowest_sweeps_let_through_hold_in_float32() -> None:
    rng = np.random.default_rng(0)
    cosine = np.sqrt(SLOWEST) - 1e-4
    for far in (1.0, 30.0, 1000.0):
        caps = random_caps(rng, np.array([[1.0, 0.0], [cosine, np.sqrt(1 - cosine**2)]]))
        caps = Caps(caps.rows, caps.lows - 1, caps.highs + 1)
        h = rng.normal(size=(200, 2)) * far
        after = applied(solve(caps.bounds()), h, torch.float32)
        _, size = nearest(caps, h)
        assert (caps.missed(after) <= HOLDS * (1 + np.abs(h).max(1))).all()
        assert (np.linalg.norm(after - h, axis=1) - size <= HOLDS * (1 + size)).all()


def test_directions_too_close_are_named() -> None:
    far, near = np.sqrt(SLOWEST) - 1e-3, np.sqrt(SLOWEST) + 1e-3
    for cosine, refused in ((far, False), (near, True)):
        rows = np.array([[0, 0, 1], [1, 0, 0.0], [cosine, np.sqrt(1 - cosine**2), 0]])
        caps = Caps(rows, np.full(3, -1.0), np.ones(3))
        if not refused:
            assert [len(block) for block in solve(caps.bounds()).blocks] == [2]
            continue
        with pytest.raises(Unsolvable) as caught:
            solve(caps.bounds())
        assert (caught.value.why, caught.value.members) == ("close", (1, 2))
        assert caught.value.cosine == pytest.approx(near)


def test_a_pair_converges_by_the_square_of_its_cosine() -> None:
    assert sweep_rate(np.array([[1, 0.9], [0.9, 1]])) == pytest.approx(0.81)
    assert sweep_rate(np.array([[1, 1.0], [1.0, 1]])) == 1.0


def test_many_columns_have_a_bound_that_covers_the_few() -> None:
    rows = skewed(np.random.default_rng(1), 16, 64, 0.1)
    gram = rows @ rows.T
    assert sweep_rate(gram[:12, :12]) <= sweep_rate(gram) < 1


def test_more_directions_than_a_bound_is_known_for_are_refused() -> None:
    rows = skewed(np.random.default_rng(1), 16, 64, 0.4)
    with pytest.raises(Unsolvable) as caught:
        solve(Caps(rows, np.full(16, -1.0), np.ones(16)).bounds())
    assert (caught.value.why, caught.value.members) == ("many", tuple(range(16)))
    few = solve(Caps(rows[:12], np.full(12, -1.0), np.ones(12)).bounds())
    assert [len(block) for block in few.blocks] == [12]


def test_what_is_impossible_is_found_with_nothing_too_much() -> None:
    rows = np.array([[1, 0], [0, 1], [-0.6, -0.8], [-1, 0.0]])
    limits = np.array([0, 0, -1, 5.0])
    assert impossible(rows, limits) == (0, 1, 2)
    assert impossible(rows, limits + 1) == ()


def square(*rows: Sequence[float]) -> Array:
    made = np.array(rows, dtype=np.float64)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_pins_take_their_part_and_leave_plain_caps() -> None:
    rows = square([1, 0, 0], [1, 1, 0], [0, 0, 1])
    solved = solve(Caps(rows, np.array([1.0, -1, -1]), np.array([1.0, 2, 1])).bounds())
    assert solved.blocks == ()
    assert [one.of for one in solved.caps] == [(0,), (1,), (2,)]
    assert [one.off for one in solved.caps] == [(), (0,), ()]
    np.testing.assert_allclose(solved.caps[1].row, [0, 1, 0], atol=1e-15)
    assert solved.caps[1].low == pytest.approx(-np.sqrt(2) - 1)
    assert solved.caps[1].high == pytest.approx(2 * np.sqrt(2) - 1)
    assert solved.notes == (Note("orthogonalised", (1,), (0,)),)


def test_equal_and_opposite_directions_become_one() -> None:
    rows = square([1, 2], [-2, -4], [2, 4])
    solved = solve(Caps(rows, np.array([-1, -2, 0.0]), np.array([3, 0.5, np.inf])).bounds())
    (one,) = solved.caps
    assert (one.low, one.high, one.of) == (0.0, 2.0, (0, 1, 2))
    assert solved.notes == (Note("merged", (1,), (0,)), Note("merged", (2,), (0, 1)))


def test_bounds_that_touch_become_pins() -> None:
    rows = square([1, 0], [0, 1], [1, 1])
    solved = solve(Caps(rows, np.array([-1, -1, 0.0]), np.array([0, 0, 1.0])).bounds())
    assert solved.blocks == ()
    np.testing.assert_allclose(applied(solved, np.array([[7.0, -3.0]])), [[0, 0]], atol=1e-5)
    assert {note.done for note in solved.notes} == {"pinned", "fixed"}


def test_bounds_that_follow_are_left_out() -> None:
    rows = square([1, 0], [0, 1], [1, 1])
    solved = solve(Caps(rows, np.array([-1, -1, -2.0]), np.array([1, 1, 1.5])).bounds())
    assert (len(solved.caps), solved.blocks) == (2, ())
    assert solved.notes == (Note("implied", (2,), (0, 1)),)


def test_dependent_bounds_that_all_matter_are_refused() -> None:
    rows = square([0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 1, 0])
    with pytest.raises(Unsolvable) as caught:
        solve(Caps(rows, np.full(4, -1.0), np.ones(4)).bounds())
    assert (caught.value.why, caught.value.members) == ("dependent", (1, 2, 3))
