"""Gates in the keys of blocks: what weighs an edit that some attention sees, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.prefixes import Core, core, keyed_hashing, shared

PROMPT = tuple(range(10, 30))  # five blocks
ANSWER = tuple(range(40, 50))  # with it, seven and a half
BLOCKS = 7
PLAIN = "steer v at post_block[1]"
# A gate at the edit's own site, and one at an earlier site.
HERE = "ablate v at post_block[1] gate w sharpness 2"
BEFORE = "steer v at post_block[2] gate w at pre_attn[1] threshold 0.5"


@pytest.fixture(autouse=True, scope="module")
def _hashing() -> Iterator[None]:
    with keyed_hashing():
        yield


def answer(engine: Core, asked: str = "p") -> list[bytes]:
    return engine.hashes(asked, PROMPT, ANSWER)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            f"{HERE}\n{BEFORE}",
            f"{BEFORE.replace(' v ', ' same ')}\n{HERE} at post_block[1]",
            id="said in another way",
        ),
        pytest.param(
            f"{BEFORE}\nsteer w at post_block[-1] gate w at pre_attn[1]",
            BEFORE,
            id="a gate of what no attention sees",
        ),
        pytest.param(
            f"{BEFORE}\nsteer w at post_attn[2] gate v at pre_attn[1] when token(99)",
            BEFORE,
            id="a gate of what happens to no token here",
        ),
        pytest.param(
            "ablate v at post_block[1] strength 0.5 over",
            "ablate v at post_block[1] strength 0.5",
            id="a strength that may go over 1 and does not",
        ),
    ],
)
def test_what_does_the_same_shares_everything(folder: Path, one: str, other: str) -> None:
    engine = core(folder, one, other)
    assert answer(engine) == answer(engine, "q")
    # Beside other programs a gate has another place among the columns and the weights.
    alone = core(folder, f"{PLAIN}\n{BEFORE.replace('gate w', 'gate v')}", HERE, other)
    assert answer(alone, "r") == answer(engine)


CONTENT = {
    "an absolute value": (HERE, f"{HERE} absolute"),
    "a cosine": (HERE, f"{HERE} cosine"),
    "a step": (BEFORE, BEFORE.replace("threshold", "above")),
    "the other side of a step": (
        BEFORE.replace("threshold", "above"),
        BEFORE.replace("threshold", "below"),
    ),
    "the upper bound of a step": (
        BEFORE.replace("threshold 0.5", "above 0.5 below 1"),
        BEFORE.replace("threshold 0.5", "above 0.5 below 2"),
    ),
    "a share of the stream's length": (
        "steer one at post_block[1] scale 0.5",
        "steer one at post_block[1] scale 0.5 norm",
    ),
    "whose length it is": (
        "steer v at post_block[1] scale 0.5 norm\nsteer w at post_block[1] scale 0.5 norm",
        "steer w at post_block[1] scale 0.5 norm\nsteer v at post_block[1] scale 0.5 norm",
    ),
    "a kept norm": ("ablate v at post_block[1]", "ablate v at post_block[1] keep norm"),
    "how far over": (
        "ablate v at post_block[1] strength 1.5 over",
        "ablate v at post_block[1] strength 2 over",
    ),
    "gate": (HERE, "ablate v at post_block[1]"),
    "gate of another site": (BEFORE, "steer v at post_block[2]"),
    "probe": (HERE, HERE.replace("gate w", "gate one")),
    "sharpness": (HERE, HERE.replace("sharpness 2", "sharpness -2")),
    "threshold": (BEFORE, BEFORE.replace("0.5", "0.25")),
    "where it is read": (BEFORE, BEFORE.replace("pre_attn", "post_attn")),
    "what it reads": (
        f"steer v at pre_attn[1]\n{BEFORE}",
        f"{BEFORE}\nsteer v at pre_attn[1]",
    ),
    "what it reads at its edit's site": (
        f"steer w at post_block[1]\n{HERE}",
        f"conflict sum\nsteer w at post_block[1]\n{HERE}",
    ),
    "which of two edits it weighs": (
        "steer v at post_block[1] gate w\nablate w at post_block[1]",
        "steer v at post_block[1]\nablate w at post_block[1] gate w",
    ),
}


@pytest.mark.parametrize(("one", "other"), CONTENT.values(), ids=CONTENT)
def test_what_does_something_else_shares_nothing(folder: Path, one: str, other: str) -> None:
    engine = core(folder, one, other)
    assert len({*answer(engine), *answer(engine, "q"), *answer(engine, "off")}) == 3 * BLOCKS


def test_a_gate_of_no_edit_of_a_token_is_in_no_key_of_it(folder: Path) -> None:
    when = " when prompt[9] or generated"
    engine = core(folder, BEFORE + when)
    assert shared(answer(engine), answer(engine, "off")) == 2


def test_the_gate_of_an_edit_that_gave_way_is_in_no_key(folder: Path) -> None:
    engine = core(folder, PLAIN, HERE, BEFORE, rest="conflict priority\n")
    assert answer(engine, "p + q") == answer(engine)
    assert answer(engine, "q + p") == answer(engine, "q")
    assert shared(answer(engine, "p + r"), answer(engine)) == 0
