"""The meaning of selectors, and their algebra against brute force over small requests."""

from __future__ import annotations

import time
from itertools import product

import pytest
from hypothesis import given, settings

from interv.document.positions import merged
from interv.document.selectors import (
    Witness,
    disjoint,
    equivalent,
    holds,
    implies,
    overlap,
    satisfiable,
    selector_text,
    witness,
)
from interv.document.spec import (
    And,
    At,
    Everything,
    InPhase,
    Not,
    Or,
    Phase,
    PositionRange,
    Positions,
    Selector,
    Slice,
    Stride,
    Token,
)
from interv.errors import IntervError
from tests.strategies import runnable_selectors

PROMPT, GENERATED = InPhase(phase="prompt"), InPhase(phase="generated")
quick = settings(deadline=None, max_examples=300)

# Larger than any constant of the strategies (-9..9, ids 0..3) by the common multiple of their
# steps (1..3), so every cell has a token here.
PLACES = [(position, length) for length in range(1, 34) for position in range(54)]
TOKENS = [(position, length, token) for (position, length), token in product(PLACES, range(5))]


def brute(selector: Selector) -> bool:
    return any(holds(selector, *token) for token in TOKENS)


@settings(deadline=None, max_examples=120)
@given(runnable_selectors)
def test_satisfiable_is_exact(selector: Selector) -> None:
    assert satisfiable(selector) == brute(selector)


@settings(deadline=None, max_examples=60)
@given(runnable_selectors, runnable_selectors)
def test_overlap_and_implies_are_exact(a: Selector, b: Selector) -> None:
    assert overlap(a, b) == any(holds(a, *one) and holds(b, *one) for one in TOKENS)
    assert implies(a, b) == all(holds(b, *one) for one in TOKENS if holds(a, *one))


@quick
@given(runnable_selectors, runnable_selectors)
def test_laws(a: Selector, b: Selector) -> None:
    assert disjoint(a, b) == (not overlap(b, a))
    assert implies(And(terms=(a, b)), a)
    assert implies(a, Or(terms=(a, b)))
    assert disjoint(a, Not(term=a))
    assert equivalent(Not(term=And(terms=(a, b))), Or(terms=(Not(term=a), Not(term=b))))


@quick
@given(runnable_selectors)
def test_a_witness_is_a_token_of_a_request(selector: Selector) -> None:
    found = witness(selector)
    if found is not None:
        assert holds(selector, *found)
        assert found.position >= 0
        assert found.prompt_length >= 1


@quick
@given(runnable_selectors)
def test_places_together_say_what_places_one_by_one_do(selector: Selector) -> None:
    from interv.document.selectors import _among, _kinds_of_ids, _places, atoms

    leaves = tuple(atoms(selector))
    places, kinds = list(_places(leaves)), _kinds_of_ids(leaves)
    tried = (Witness(x, x - y, one) for x, y in places for one in kinds)
    first = next((one for one in tried if holds(selector, *one)), None)
    assert _among(selector, leaves, places, kinds) == first


def test_ranges_are_not_walked() -> None:
    start = time.perf_counter()
    long, late = Slice(phase="prompt", start=0, stop=100_000), At(phase="prompt", index=99_999)
    assert overlap(long, late)
    assert implies(late, long)
    assert disjoint(long, At(phase="prompt", index=100_000))
    assert time.perf_counter() - start < 0.5


def selected(selector: Selector, prompt_length: int, total: int) -> list[int]:
    return [p for p in range(total) if holds(selector, p, prompt_length, 7)]


def listed(phase: Phase, *items: int | tuple[int, int]) -> Positions:
    made = (n if isinstance(n, int) else PositionRange(first=n[0], last=n[1]) for n in items)
    return Positions(phase=phase, items=tuple(made))


@quick
@given(runnable_selectors)
def test_positions_that_are_merged_hold_for_the_same_tokens(selector: Selector) -> None:
    short = merged(selector)
    assert [holds(short, *one) for one in TOKENS[::31]] == [
        holds(selector, *one) for one in TOKENS[::31]
    ]
    assert merged(short) == short


EXCEPT = "prompt and not prompt[0, 3]"


def alone(index: int) -> At:
    return At(phase="prompt", index=index)


@pytest.mark.parametrize(
    ("written", "short"),
    [
        (Or(terms=(alone(0), GENERATED, alone(-1))), "prompt[0, -1] or generated"),
        (Or(terms=(alone(2), Or(terms=(alone(0), alone(2))))), "prompt[2, 0]"),
        (Or(terms=(alone(2), alone(2))), "prompt[2]"),
        (
            And(terms=(PROMPT, Not(term=alone(0)), Not(term=alone(3)))),
            "prompt and not prompt[0, 3]",
        ),
        (And(terms=(alone(0), alone(3))), "prompt[0] and prompt[3]"),
        (Or(terms=(alone(0), listed("generated", 0, (2, 4)))), "prompt[0] or generated[0, 2..4]"),
        (Or(terms=(alone(0), listed("prompt", (2, 4)))), "prompt[0, 2..4]"),
    ],
    ids=str,
)
def test_alternatives_are_one_list(written: Selector, short: str) -> None:
    assert selector_text(merged(written)) == short


@pytest.mark.parametrize(
    ("a", "b", "meet"),
    [
        (Stride(phase="generated", step=4), Stride(phase="generated", start=2, step=6), True),
        (Stride(phase="generated", step=4), Stride(phase="generated", start=1, step=6), False),
        # By the start and by the end of the prompt: its length decides.
        (Stride(phase="prompt", step=2), Stride(phase="prompt", start=-1, step=2), True),
        (listed("prompt", *range(0, 8192, 2)), listed("prompt", *range(1, 8192, 2)), False),
        (listed("prompt", *range(0, 8192, 2)), listed("prompt", *range(-4096, 0)), True),
        (listed("prompt", *range(0, 8192, 2)), Stride(phase="prompt", start=1, step=2), False),
        (listed("prompt", *range(0, 8192, 2)), Stride(phase="prompt", start=8191, step=3), False),
        (listed("generated", *range(0, 8192, 2)), Slice(phase="generated", start=8191), False),
    ],
)
def test_long_lists_and_steps_are_compared_exactly(a: Selector, b: Selector, meet: bool) -> None:
    assert overlap(a, b) == meet
    assert implies(a, Not(term=b)) != meet


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (Everything(), [0, 1, 2, 3, 4, 5, 6]),
        (PROMPT, [0, 1, 2, 3]),
        (GENERATED, [4, 5, 6]),
        (At(phase="prompt", index=-1), [3]),
        (At(phase="prompt", index=0), [0]),
        (At(phase="prompt", index=4), []),
        (At(phase="prompt", index=-5), []),
        (At(phase="generated", index=0), [4]),
        (Slice(phase="prompt", start=-3, stop=-1), [1, 2]),
        (Slice(phase="prompt", start=-9, stop=2), [0, 1]),
        (Slice(phase="prompt", start=2), [2, 3]),
        (Slice(phase="generated", stop=2), [4, 5]),
        (Slice(phase="generated", start=1, stop=None), [5, 6]),
        (listed("prompt", 0, 2, -1), [0, 2, 3]),
        (listed("prompt", 1, 9, -9), [1]),
        (listed("prompt", (1, -2)), [1, 2]),
        (listed("prompt", (-3, 1), 3), [1, 3]),
        (listed("prompt", (-9, 1)), [0, 1]),
        (listed("generated", 0, (2, 8)), [4, 6]),
        (Stride(phase="prompt", step=2), [0, 2]),
        (Stride(phase="prompt", start=-3, step=2), [1, 3]),
        (Stride(phase="prompt", start=-5, step=2), [1, 3]),
        (Stride(phase="generated", step=2), [4, 6]),
        (Stride(phase="generated", start=1, stop=2, step=2), [5]),
        (Token(ids=(1, 7)), [0, 1, 2, 3, 4, 5, 6]),
        (Token(ids=(1,)), []),
        (And(terms=(PROMPT, Not(term=At(phase="prompt", index=0)))), [1, 2, 3]),
    ],
    ids=selector_text,
)
def test_meaning(selector: Selector, expected: list[int]) -> None:
    assert selected(selector, 4, 7) == expected


@pytest.mark.parametrize(
    "leaf",
    [
        At(phase="generated", index=-1),
        Slice(phase="generated", start=-4),
        Stride(phase="generated", start=-4, step=2),
        listed("generated", 0, -1),
    ],
    ids=selector_text,
)
def test_generated_has_no_end_to_count_from(leaf: Selector) -> None:
    with pytest.raises(IntervError) as caught:
        satisfiable(leaf)
    assert caught.value.code == "E210"


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        (And(terms=(And(terms=(PROMPT, PROMPT)), GENERATED)), "(prompt and prompt) and generated"),
        (Or(terms=(And(terms=(PROMPT, PROMPT)), GENERATED)), "prompt and prompt or generated"),
        (Not(term=Not(term=PROMPT)), "not not prompt"),
        (Token(ids=(3, 'a"b')), 'token(3, "a\\"b")'),
    ],
)
def test_text(selector: Selector, text: str) -> None:
    assert selector_text(selector) == text
