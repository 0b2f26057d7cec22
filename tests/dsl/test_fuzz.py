"""Whatever comes in, the answer is a document, or errors of our own that can be printed."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from hypothesis import given, settings, strategies as st

from interv.dsl.expression import parse_expression
from interv.dsl.formatter import format_text
from interv.dsl.syntax import KEYWORDS
from interv.errors import IntervError, each
from interv.load import load_data, load_text

VALID = [path.read_text() for path in sorted((Path(__file__).parent / "valid").glob("*.interv"))]
WORDS = [word.lower() for word in sorted(KEYWORDS)]
SIGNS = [
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "=",
    ",",
    ":",
    "..",
    "*",
    "+",
    '"a"',
    '"',
    "#",
    "@",
    "\n",
    "-1",
    "2.5",
]
quick = settings(deadline=None, max_examples=150)
soups = st.lists(st.sampled_from([*WORDS, *SIGNS, "x", "post_block"]), max_size=30).map(" ".join)


Result = TypeVar("Result")


def attempt(call: Callable[[], Result]) -> tuple[Result | None, tuple[IntervError, ...]]:
    """Return the result, or the errors; any other exception fails the test."""
    try:
        return call(), ()
    except IntervError as error:
        return None, each(error)


def answer(text: str) -> None:
    document, errors = attempt(lambda: load_text(text))
    assert all(error.span is not None and str(error) for error in errors)
    if document is not None:
        assert load_text(format_text(text)).spec == document.spec


@quick
@given(soups)
def test_soup_after_the_header(text: str) -> None:
    answer(f"interv 1 {text}")


@quick
@given(soups)
def test_soup_in_a_program(text: str) -> None:
    answer(f'interv 1\nvector x = "x"\nprogram p {{ steer x at post_block[1] {text} }}')


@quick
@given(soups)
def test_soup_behind_a_concept(text: str) -> None:
    answer(f'interv 1\nvector x = "x" vector y = "y"\nprogram p {{ replace x by y {text} }}')


@quick
@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    answer(text)
    _, errors = attempt(lambda: parse_expression(text))
    assert all(map(str, errors))


@quick
@given(st.integers(0, 10**9))
def test_a_document_with_a_few_changes(seed: int) -> None:
    rng = random.Random(seed)
    words = rng.choice(VALID).split(" ")
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(words))
        words[place : place + rng.randint(0, 2)] = rng.choices(
            [*WORDS, *SIGNS, ""], k=rng.randint(0, 2)
        )
    answer(" ".join(words))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([*WORDS, "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("op", "kind", "at", "when", "name", "layers", "vector", "by", "gate", "site"),
                    *("programs", "statements", "vectors", "keep_norm", "scale"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@quick
@given(plain)
def test_any_data(data: object) -> None:
    program = {"name": "p", "statements": [data]}
    whole = {"interv": 1, **data} if isinstance(data, dict) else data
    for given_data in ({"interv": 1, "programs": [program]}, whole):
        _, errors = attempt(partial(load_data, given_data))
        assert all(map(str, errors))
