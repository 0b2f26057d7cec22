"""Selectors that follow markers: what they mean, their algebra, and what is said of wrong ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings, strategies as st

from interv.builder import after, before, between, generated, token
from interv.document.markers import LONGEST_MARKER, Following, following
from interv.document.selectors import (
    disjoint,
    equivalent,
    holds,
    implies,
    overlap,
    satisfiable,
    selector_text,
    witness,
)
from interv.document.spec import After, And, Before, Between, Not, Selector, Token
from interv.document.token_texts import resolve_texts
from interv.errors import IntervError
from interv.load import dump_json, load_data, load_text
from tests.strategies import followers, selectors_along

quick = settings(deadline=None, max_examples=300)
HEAD = 'interv 1 vector v = "v" program p { steer v at post_block[1] when '
OPEN, CLOSE = token(1), token(2)


def ended(mark: Token, ids: list[int]) -> set[int]:
    """Return where a marker ends, looking for it everywhere."""
    found = set()
    for one in mark.ids:
        marker = list(one) if isinstance(one, tuple) else [one]
        last = len(marker) - 1
        found |= {q for q in range(last, len(ids)) if ids[q - last : q + 1] == marker}
    return found


def meant(leaf: Following, ids: list[int], p: int) -> bool:
    """Say what the language's page says, from all the places where markers end."""
    match leaf:
        case After(mark=mark):
            return any(q < p for q in ended(mark, ids))
        case Before(mark=mark):
            return not any(q <= p for q in ended(mark, ids))
        case Between(start=start, end=end):
            opened, closed = ended(start, ids), ended(end, ids)
            last = max((q for q in opened | closed if q < p), default=None)
            return last is not None and last not in closed and p not in closed


requests = st.lists(st.integers(0, 3), min_size=1, max_size=14)


@quick
@given(followers(st.integers(0, 3)), requests)
def test_one_after_the_other_is_all_at_once(leaf: Following, ids: list[int]) -> None:
    for p, one in enumerate(ids):
        assert holds(leaf, p, 1, one, ids[:p]) == meant(leaf, ids, p)


@quick
@given(selectors_along)
def test_a_witness_holds(selector: Selector) -> None:
    found = witness(selector)
    if found is not None:
        assert holds(selector, *found)
        assert found.position >= len(found.earlier)
        assert found.prompt_length >= 1


@quick
@given(selectors_along, st.lists(st.integers(0, 4), min_size=1, max_size=9), st.integers(1, 9))
def test_what_some_token_satisfies_can_be(selector: Selector, ids: list[int], length: int) -> None:
    if any(holds(selector, p, length, one, ids[:p]) for p, one in enumerate(ids)):
        assert satisfiable(selector)


@quick
@given(followers(st.integers(0, 3)), followers(st.integers(0, 3)), requests)
def test_two_that_never_meet_and_one_that_covers(
    a: Following, b: Following, ids: list[int]
) -> None:
    both = [(meant(a, ids, p), meant(b, ids, p)) for p in range(len(ids))]
    assert overlap(a, b) or (True, True) not in both
    assert not implies(a, b) or (True, False) not in both


X, Y = Token(ids=(1,)), Token(ids=(2,))


def test_the_algebra_knows_them() -> None:
    assert disjoint(After(mark=X), Before(mark=X))
    assert disjoint(Before(mark=X), X)
    assert disjoint(Between(start=X, end=Y), Y)
    assert disjoint(Between(start=X, end=Y), Before(mark=X))
    assert implies(Between(start=X, end=Y), After(mark=X))
    assert not implies(After(mark=X), Between(start=X, end=Y))
    assert overlap(After(mark=X), X)
    # A pair of tokens ends where its second does.
    assert implies(After(mark=Token(ids=((1, 2),))), After(mark=Y))
    assert equivalent(After(mark=Token(ids=(1, (5, 1)))), After(mark=X))
    assert disjoint(After(mark=Token(ids=((1, 2, 3),))), Before(mark=Token(ids=((2, 3),))))
    # The earliest place is known, and so is what cannot come before it.
    first = load_text(f"{HEAD} prompt[0] or after token([1, 2]) }}").spec
    assert first.programs[0].statements
    assert not satisfiable(And(terms=(After(mark=X), load_selector("prompt[0]"))))
    pair = After(mark=Token(ids=((1, 2),)))
    assert not satisfiable(And(terms=(pair, load_selector("prompt[:2]"))))
    assert satisfiable(And(terms=(pair, load_selector("prompt[2]"))))


def test_too_many_markers_to_look_through_can_be() -> None:
    many = tuple(After(mark=Token(ids=(i,))) for i in range(12))
    never = And(terms=(*many, Not(term=many[0])))
    assert satisfiable(never)
    assert not satisfiable(And(terms=(*many[:4], Not(term=many[0]))))


def load_selector(text: str) -> Selector:
    return load_text(f"{HEAD} {text} }}").spec.programs[0].statements[0].when


@pytest.mark.parametrize(
    ("ids", "selector", "expected"),
    [
        ([0, 1, 0, 2, 0], after(OPEN), "..+++"),
        ([0, 1, 0, 2, 0], before(OPEN), "+...."),
        ([0, 1, 0, 2, 0], between(OPEN, CLOSE), "..+.."),
        ([0, 1, 0, 1, 0], between(OPEN, CLOSE), "..+++"),  # never closed; opened again within
        ([1, 0, 2, 0, 1, 0], between(OPEN, CLOSE), ".+...+"),  # again
        ([2, 0, 1, 1, 2, 2], between(OPEN, CLOSE), "...+.."),
        ([5, 6, 5, 6, 0], after(token([5, 6])), "..+++"),
        ([5, 6, 5, 6, 0], before(token([5, 6])), "+...."),  # its first token is not known to be
        ([5, 5, 6, 0], before(token([5, 6])), "++.."),
        ([1, 5, 0, 5, 6, 0], between(OPEN, token([5, 6])), ".+++.."),
        # What ends both is closed; overlapping markers each end.
        ([1, 2, 0, 2, 0], between(token(2), token([1, 2])), "....+"),
        ([7, 7, 7, 0], after(token([7, 7])), "..++"),
        ([0, 1, 0, 2, 0], ~after(OPEN) & ~before(OPEN), ".+..."),
        ([0, 9, 0, 8, 0], after(token(8, 9)), "..+++"),
        ([0, 1, 0, 2, 0], after(OPEN) & generated, "...++"),
    ],
    ids=lambda one: str(one) if not isinstance(one, list | str) else "",
)
def test_meaning(ids: list[int], selector: object, expected: str) -> None:
    found = [holds(selector.selector, p, 3, one, ids[:p]) for p, one in enumerate(ids)]
    assert "".join("+" if one else "." for one in found) == expected


def test_as_text_and_data() -> None:
    text = 'between token("<a>", [5, 6]) and token(7) or not after token(1) and before token("x")'
    selector = load_selector(text)
    assert selector_text(selector) == text
    assert len(following(selector)) == 3
    spec = load_text(f"{HEAD} {text} }}").spec
    data = json.loads(dump_json(spec))
    assert data["programs"][0]["statements"][0]["when"]["terms"][0] == {
        "kind": "between",
        "start": {"kind": "token", "ids": ["<a>", [5, 6]]},
        "end": {"kind": "token", "ids": [7]},
    }
    assert load_data(data).spec == spec


def test_texts_of_several_tokens() -> None:
    text = 'after token("ab", "c", 3) or between token("c") and token("de")'
    document = load_text(f"{HEAD} {text} }}")
    found = resolve_texts(document, lambda text: [ord(one) for one in text]).spec
    assert selector_text(found.programs[0].statements[0].when) == (
        "after token([97, 98], 99, 3) or between token(99) and token([100, 101])"
    )


def message(text: str, encode: object = None) -> str:
    with pytest.raises(IntervError) as caught:
        resolve_texts(load_text(text, "a.interv"), encode)
    return str(caught.value)


def shown(text: str, part: str, said: str, label: str, *more: str) -> str:
    column = text.index(part) + 1
    lines = [
        said,
        f" --> a.interv:1:{column}",
        "  |",
        f"1 | {text}",
        f"  | {' ' * (column - 1)}{'^' * len(part)} {label}",
        *(["  |"] if more else []),
        *(f"  = {one}" for one in more),
    ]
    return "\n".join(lines)


def test_a_sequence_is_no_token() -> None:
    text = f"{HEAD} token(1, [5, 6]) }}"
    assert message(text) == shown(
        text,
        "[5, 6]",
        "error[E850]: 'token(1, [5, 6])' selects one token at a time, not a sequence",
        "a sequence",
        "sequences are markers: after token([5, 6])",
    )


def test_a_marker_that_is_too_long_or_nothing() -> None:
    long = str([1] * (LONGEST_MARKER + 1))
    text = f"{HEAD} after token({long}) }}"
    assert message(text) == shown(
        text,
        long,
        "error[E851]: this marker is 65 tokens",
        "65 tokens",
        "a marker has 1 to 64 tokens",
    )
    text = f'{HEAD} after token("") or before token("{"a" * 65}") }}'
    assert message(text, list) == (
        shown(
            text,
            '""',
            'error[E851]: token("") is 0 tokens of this model',
            "0 tokens",
            "a marker has 1 to 64 tokens",
        )
        + "\n\n"
        + shown(
            text,
            f'"{"a" * 65}"',
            f'error[E851]: token("{"a" * 65}") is 65 tokens of this model',
            "65 tokens",
            "a marker has 1 to 64 tokens",
        )
    )


def test_what_closes_as_it_opens_never_matches() -> None:
    text = f"{HEAD} between token(1, [3, 2]) and token(2, 1) }}"
    part = "between token(1, [3, 2]) and token(2, 1)"
    assert message(text) == shown(
        text, part, f"error[E209]: no token can ever match '{part}'", "never matches"
    )


def test_an_id_below_0_in_a_sequence() -> None:
    text = f"{HEAD} after token([5, -6]) }}"
    assert message(text) == shown(text, "-6", "error[E207]: -6 is not a token id", "below 0")
