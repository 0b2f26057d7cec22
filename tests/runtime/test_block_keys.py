"""The keys of blocks, in vLLM's own hashes: what forks the prefix cache and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.documents import carried
from tests.runtime.prefixes import (
    BLOCK,
    HEADER,
    Core,
    core,
    keyed_hashing,
    keys_of,
    shared,
)

PROMPT = tuple(range(10, 30))  # five blocks
ANSWER = tuple(range(40, 50))  # with it, seven and a half
BLOCKS = 7
# Blocks that a request shares with an unedited one, by its selector.
SELECTED = {
    "all": 0,
    "prompt": 0,
    "generated": 5,
    "generated[3:]": 5,
    "generated[4:]": 6,
    "prompt[-1]": 4,
    "prompt[-5]": 3,
    "prompt[7]": 1,
    "prompt[8]": 2,
    "prompt[6:8]": 1,
    "prompt[:3]": 0,
    "token(9)": 7,
    "token(18)": 2,
    "token(18, 44)": 2,
    "token(44)": 6,
    "prompt[40:]": 7,
    "generated[10:]": 7,
    "token(18) and generated": 7,
    "not token(10, 11, 12, 13)": 1,
}


@pytest.fixture(autouse=True, scope="module")
def _hashing() -> Iterator[None]:
    with keyed_hashing():
        yield


def steer(when: str = "all", vector: str = "v", at: str = "post_block[1]", scale: str = "1") -> str:
    return f"steer {vector} at {at} scale {scale} when {when}"


def answer(engine: Core, asked: Any = "p", **fields: Any) -> list[bytes]:
    return engine.hashes(asked, PROMPT, ANSWER, **fields)


def stock() -> list[bytes]:
    return answer(Core(None), None)


@pytest.mark.parametrize(("when", "expected"), SELECTED.items(), ids=str)
def test_a_request_shares_the_blocks_before_its_first_edit(
    folder: Path, when: str, expected: int
) -> None:
    made = answer(core(folder, steer(when)))
    assert len(made) == BLOCKS
    assert shared(made, stock()) == expected
    # A fork is for good: what is computed after an edit has seen it.
    assert {*made[expected:]}.isdisjoint(stock())


def test_what_happens_to_one_block_is_no_key_of_the_next(folder: Path) -> None:
    keys = keys_of(core(folder, steer("prompt[5] or generated[0]")).request("p", PROMPT, ANSWER))
    assert [key is not None for key in keys] == [False, True, False, False, False, True, False]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(steer(), steer(vector="same"), id="the same vector under another name"),
        pytest.param(steer("prompt[19]"), steer("prompt[-1]"), id="one token, named twice"),
        pytest.param(steer("prompt[18:]"), steer("token(28, 29)"), id="tokens and positions"),
        pytest.param(steer(), "conflict priority\n" + steer(), id="another policy, no conflict"),
        pytest.param(
            "ablate v at post_block[1]",
            "cap same at post_block[1] in [0, 0]",
            id="a cap to nothing",
        ),
        pytest.param(
            steer() + "\n" + steer("prompt", at="post_block[2]"),
            steer("prompt", at="post_block[2]") + "\n" + steer(),
            id="the order of edits of different sites",
        ),
        pytest.param(
            steer("prompt") + "\n" + steer("generated"),
            steer("generated") + "\n" + steer("prompt"),
            id="the order of edits of different tokens",
        ),
        pytest.param(steer("prompt") + "\n" + steer("generated"), steer(), id="in two pieces"),
        pytest.param(
            "conflict priority\n" + steer("prompt") + "\n" + steer(vector="w"),
            steer("prompt") + "\n" + steer("generated", "w"),
            id="what gave way is not in the key",
        ),
        pytest.param(
            steer() + "\nsteer w at pre_attn[2] scale 0\nablate w at pre_attn[1] strength 0",
            steer(),
            id="edits without effect",
        ),
        pytest.param(steer(scale="2"), steer() + "\n" + steer(), id="one scale in two statements"),
    ],
)
def test_what_does_the_same_shares_everything(folder: Path, one: str, other: str) -> None:
    engine = core(folder, one, other)
    assert answer(engine) == answer(engine, "q")
    # In an engine of its own a program has other rows, bits and places of sites.
    alone = core(folder, steer("token(1)", "one", "pre_attn[0]"), steer("prompt", "w"), other)
    assert answer(alone, "r") == answer(engine)


CONTENT = {
    "vector": (steer(), steer(vector="w")),
    "scale": (steer(), steer(scale="1.0000001")),
    "sign": (steer(), steer(scale="-1")),
    "length of a vector": (steer(), steer(vector="longer")),
    "site": (steer(), steer(at="post_attn[1]")),
    "layer": (steer(), steer(at="post_block[2]")),
    "one more layer": (steer(), steer(at="post_block[1, 2]")),
    "op": ("ablate v at post_block[1] strength 0.5", steer(scale="0.5")),
    "strength": ("ablate v at post_block[1]", "ablate v at post_block[1] strength 0.5"),
    "bounds": ("cap v at post_block[1] in [-1, 1]", "cap v at post_block[1] in [-1, 2]"),
    "one bound": ("cap v at post_block[1] in [-1, ]", "cap v at post_block[1] in [-1, 2]"),
    "order": (
        "ablate v at post_block[1]\n" + steer(vector="w"),
        steer(vector="w") + "\nablate v at post_block[1]",
    ),
    "what an edit reads": (
        "conflict sum\n" + steer(vector="w") + "\nablate v at post_block[1]",
        steer(vector="w") + "\nablate v at post_block[1]",
    ),
}


@pytest.mark.parametrize(("one", "other"), CONTENT.values(), ids=CONTENT)
def test_what_does_something_else_shares_nothing(folder: Path, one: str, other: str) -> None:
    engine = core(folder, one, other)
    made = [answer(engine), answer(engine, "q"), stock()]
    assert len({*made[0], *made[1], *made[2]}) == 3 * BLOCKS
    # The same name for something else, in an engine of its own.
    assert shared(answer(core(folder, other)), made[0]) == 0


@pytest.mark.parametrize("at", ["post_attn[-1]", "post_block[-1]", "post_attn[3]"])
def test_what_no_later_attention_sees_forks_nothing(folder: Path, at: str) -> None:
    engine = core(folder, steer(at=at), steer("prompt[9]") + "\n" + steer(at=at))
    assert answer(engine) == stock()
    assert answer(engine, "q") == answer(core(folder, steer("prompt[9]")))


def test_the_attention_of_the_last_block_sees_what_is_edited_before_it(folder: Path) -> None:
    made = answer(core(folder, steer("prompt[9]", at="pre_attn[-1]")))
    assert shared(made, stock()) == 2


def test_positions_mean_other_tokens_under_another_prompt_length(folder: Path) -> None:
    """One sequence of tokens, as a prompt of several lengths with the rest generated."""
    engine, whole = core(folder, steer("prompt[-1]"), steer("generated")), (*PROMPT, *ANSWER)
    for name in "pq":
        made = {n: engine.hashes(name, whole[:n], whole[n:]) for n in range(6, 30)}
        for n, one in made.items():
            for m, other in made.items():
                # The first token that is edited for one of them and not for the other.
                first = min(n, m) - (name == "p")
                assert shared(one, other) == (BLOCKS if n == m else min(first // BLOCK, BLOCKS))


def test_generated_tokens_share_where_their_edits_agree(folder: Path) -> None:
    engine = core(folder, steer(), steer("generated"), steer("prompt"))
    everything, generated, prompt = (
        keys_of(engine.request(one, PROMPT, ANSWER)) for one in ("p", "q", "r")
    )
    assert everything[5:] == generated[5:]
    assert everything[:5] == prompt[:5]
    assert generated[:5] == [None] * 5
    assert prompt[5:] == [None] * 2
    # A second turn: the first one's generated tokens are prompt now, and edited by another.
    turn = (*PROMPT, *ANSWER, 1, 2, 3, 4)
    first = engine.hashes("p", PROMPT, ANSWER)
    assert [shared(first, engine.hashes(one, turn)) for one in ("p", "r", "q")] == [7, 7, 0]
    decoded = engine.hashes("q", PROMPT, ANSWER)
    assert [shared(decoded, engine.hashes(one, turn)) for one in ("p", "q", "off")] == [0, 5, 5]


def test_multipliers_scale_the_content(folder: Path) -> None:
    body = steer() + "\nablate w at pre_attn[2] strength 0.25"
    double = steer(scale="2") + "\nablate w at pre_attn[2] strength 0.5"
    engine = core(folder, body, double, steer(scale="-1"), steer())
    assert answer(engine, "p*2") == answer(engine, "q")
    assert answer(engine, "p") == answer(engine, "q*0.5")
    assert answer(engine, "r*-1") == answer(engine, "s")
    assert answer(engine, "p*0") == answer(engine, "off") == stock()
    # Strengths end at 1 and scales do not.
    assert len({answer(engine, f"p*{m}")[0] for m in (1, 2, 4, 5)}) == 4


ADD, CUT = steer("prompt[4:]", "w"), "ablate v at post_block[1]"
MET = {
    # p + q as one program, for each policy between the programs of a request.
    "sequential": ADD + "\n" + CUT,
    "sum": "conflict sum\n" + ADD + "\n" + CUT,
    "priority": ADD + "\nablate v at post_block[1] when prompt[:4] or generated",
}


@pytest.mark.parametrize("policy", MET)
def test_programs_together_are_what_one_program_would_be(folder: Path, policy: str) -> None:
    engine = core(folder, ADD, CUT, MET[policy], rest=f"conflict {policy}\n")
    assert answer(engine, "p + q") == answer(engine, "r")
    assert [shared(answer(engine, "p + q"), answer(engine, one)) for one in "pq"] == [0, 1]
    backward = answer(engine, "q + p")
    # Where q edits every token, p gives way to it everywhere.
    assert shared(backward, answer(engine, "q")) == (BLOCKS if policy == "priority" else 1)
    assert shared(backward, answer(engine, "p + q")) == 1


def test_programs_that_never_meet_are_in_any_order(folder: Path) -> None:
    engine = core(folder, steer("prompt[5]"), steer("generated", "w"), rest="conflict error\n")
    assert answer(engine, "p + q") == answer(engine, "q + p")
    assert shared(answer(engine, "p + q"), answer(engine, "p")) == 5


def test_an_inline_program_shares_with_a_named_one(folder: Path) -> None:
    engine = core(folder, steer("prompt[9:]") + "\n" + CUT, steer("token(1)", "w"), inline=True)
    text = f"interv 1\nprogram mine {{\n{steer('prompt[9:]')}\n{CUT}\n}}"
    assert answer(engine, text) == answer(engine, "p")
    other = text.replace("prompt[9:]", "prompt[9:12]")
    assert shared(answer(engine, other), answer(engine, "p")) == 3
    none = f"interv 1\nprogram mine {{\n{steer(scale='0')}\n}}"
    assert answer(engine, none) == stock()


def test_the_default_is_for_requests_that_say_nothing(folder: Path) -> None:
    engine = core(folder, steer("prompt[5]"), rest="default p\n")
    assert answer(engine, None) == answer(engine, "p") != stock()
    assert answer(engine, "off") == stock()


def test_the_bytes_of_a_vector_decide_and_not_its_file(folder: Path) -> None:
    made = carried(folder, HEADER + "program p {\n" + steer("prompt[5]") + "\n}\n")
    tables = tuple(replace(one, bank=one.bank.copy()) for one in made.bundle.sites)
    copied = Core(replace(made, bundle=replace(made.bundle, sites=tables)))
    assert answer(copied) == answer(Core(made))
    tables[0].bank[0, 3] += 1e-6
    assert shared(answer(copied), answer(Core(made))) == BLOCKS  # digests are made at the start
    changed = Core(replace(made, bundle=replace(made.bundle, sites=tables)))
    assert shared(answer(changed), answer(Core(made))) == 1


def test_more_configurations_than_are_remembered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interv.runtime.scheduler.block_keys._REMEMBERED", 2)
    engine = core(folder, steer())
    asked = [f"p*{m}" for m in (1, 2, 3, 4)]
    running = engine.request("p*1", PROMPT)
    first = [answer(engine, one) for one in asked]
    assert [answer(engine, one) for one in asked] == first
    for one in ANSWER:
        running.append_output_token_ids(one)
    assert running.block_hashes == first[0]
