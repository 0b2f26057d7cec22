"""Pairs that are held back: how many, which, and texts that may not be on both sides."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings, strategies as st

from interv.errors import IntervError
from interv.extract import Pair, Split, split_pairs


def pairs(count: int) -> list[Pair]:
    return [Pair(f"p{i}", f"n{i}", None, i + 1) for i in range(count)]


@settings(deadline=None)
@given(st.integers(4, 60), st.floats(0, 0.5), st.integers(0, 9))
def test_every_pair_is_on_one_side(count: int, holdout: float, seed: int) -> None:
    split = split_pairs(pairs(count), holdout, seed)
    assert sorted(split.train + split.held) == list(range(count))
    assert len(split.held) == (max(2, round(holdout * count)) if holdout else 0)
    assert list(split.train) == sorted(split.train)
    assert split == split_pairs(pairs(count), holdout, seed)


def test_the_choice_is_fixed_for_ever() -> None:
    """Files say by which seed they were made."""
    order = sorted(range(10), key=lambda i: hashlib.sha256(b"0 %d" % i).hexdigest())
    expected = Split(tuple(sorted(order[2:])), tuple(sorted(order[:2])))
    assert split_pairs(pairs(10), 0.2, 0) == expected
    assert split_pairs(pairs(10), 0.2, 1) != split_pairs(pairs(10), 0.2, 0)
    assert split_pairs(pairs(3), 0.0, 0) == Split((0, 1, 2), ())


def test_seeds_choose_evenly() -> None:
    held = [place for seed in range(500) for place in split_pairs(pairs(10), 0.2, seed).held]
    assert {place: held.count(place) > 60 for place in range(10)} == dict.fromkeys(range(10), True)


def test_too_few() -> None:
    with pytest.raises(IntervError) as caught:
        split_pairs(pairs(3), 0.2, 0)
    assert str(caught.value) == (
        "error[E283]: 3 pairs are too few: 2 must be left to make the directions\n"
        "  = at least 4 are needed with --holdout 0.2; some 50 do well"
    )
    with pytest.raises(IntervError, match="at least 2 are needed with --holdout 0;"):
        split_pairs(pairs(1), 0, 0)


def test_a_text_in_two_pairs_is_refused_where_some_are_held_back() -> None:
    given_ = [*pairs(4), Pair("p1", "n9", None, 5), Pair("x", "p1", None, 6)]
    with pytest.raises(IntervError) as caught:
        split_pairs(given_, 0.3, 0)
    notes = (
        "  = a text that is both used and held back would be judged by itself\n"
        "  = leave one of them out, or hold nothing back (--holdout 0)"
    )
    assert str(caught.value) == (
        f"error[E284]: the positive of line 5 is the positive of line 2 again\n{notes}\n\n"
        f"error[E284]: the negative of line 6 is the positive of line 2 again\n{notes}"
    )
    assert len(split_pairs(given_, 0, 0).train) == 6


def test_the_same_answer_to_another_prompt_is_another_text() -> None:
    answers = [Pair("yes", "no", f"question {i}", i) for i in range(6)]
    assert len(split_pairs(answers, 0.3, 0).held) == 2
