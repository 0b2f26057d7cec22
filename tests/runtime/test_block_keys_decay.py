"""Decay and rotation in the keys of blocks.

Where a prompt ended decides how much an edit that decays does to a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.prefixes import BLOCK, Core, core, keyed_hashing, shared

TOKENS = tuple(range(10, 42))  # eight blocks
BLOCKS = len(TOKENS) // BLOCK
STEER = "steer v at post_block[1]"
GATED = "steer v at post_block[2] gate w at pre_attn[1]"


@pytest.fixture(autouse=True, scope="module")
def _hashing() -> Iterator[None]:
    with keyed_hashing():
        yield


def hashes(engine: Core, prompt: int, asked: str = "p") -> list[bytes]:
    """Return the hashes of the same tokens, of which the first `prompt` are the prompt."""
    return engine.hashes(asked, TOKENS[:prompt], TOKENS[prompt:])


@pytest.mark.parametrize("edit", [STEER, GATED, "ablate v at post_block[1] gate w"])
def test_the_same_tokens_after_another_prompt_are_edited_otherwise(folder: Path, edit: str) -> None:
    engine = core(folder, f"{edit} decay 0.5", edit)
    # The first generated token gets all of it, as a prompt token does; from the next on it counts.
    assert shared(hashes(engine, 11), hashes(engine, 32)) == 3
    assert shared(hashes(engine, 12), hashes(engine, 32)) == 3
    assert shared(hashes(engine, 11), hashes(engine, 11)) == BLOCKS
    assert shared(hashes(engine, 11, "q"), hashes(engine, 32, "q")) == BLOCKS


def test_a_request_that_goes_on_shares_what_it_generated_only_where_it_is_not_edited(
    folder: Path,
) -> None:
    engine = core(folder, f"{STEER} decay 0.5 when prompt[4:8] or generated[4:8]")
    # Block 1 is of the prompt, block 4 holds generated tokens 4 to 7.
    assert shared(hashes(engine, 12), hashes(engine, 32)) == 4


def test_another_rate_is_another_edit(folder: Path) -> None:
    engine = core(folder, f"{STEER} decay 0.5", f"{STEER} decay 0.25", STEER)
    found = [hashes(engine, 12, asked) for asked in ("p", "q", "r", "off")]
    assert len({key for keys in found for key in keys}) == 4 * BLOCKS


def test_a_decay_that_gave_way_is_in_no_key(folder: Path) -> None:
    engine = core(folder, STEER, f"{STEER} decay 0.5", rest="conflict priority\n")
    assert hashes(engine, 12, "p + q") == hashes(engine, 32)


TURN = "rotate v towards w to 30 at post_block[1]"
OTHER_TURNS = {
    "angle": TURN.replace("30", "31"),
    "adaptive": f"{TURN} adaptive",
    "plane": TURN.replace("towards w", "towards one"),
    "first vector": "rotate w towards v to 30 at post_block[1]",
    "strength": f"{TURN} strength 0.5",
    "decay": f"{TURN} decay 0.5",
    "gate": f"{TURN} gate v",
}


@pytest.mark.parametrize("other", OTHER_TURNS.values(), ids=OTHER_TURNS)
def test_another_rotation_is_another_edit(folder: Path, other: str) -> None:
    engine = core(folder, TURN, other)
    found = [hashes(engine, 12, asked) for asked in ("p", "q", "off")]
    assert len({key for keys in found for key in keys}) == 3 * BLOCKS


def test_a_rotation_said_in_another_way_shares_everything(folder: Path) -> None:
    engine = core(folder, TURN, TURN.replace(" v ", " same "), TURN.replace("30", "-330"))
    assert hashes(engine, 12) == hashes(engine, 12, "q") == hashes(engine, 12, "r")
