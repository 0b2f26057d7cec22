"""Requests together: blocks, the prefix cache, preemption, chunks, and requests that say off."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.engine.answer import Answer, Ask
from tests.engine.host import EngineHost
from tests.engine.models import VOCABULARY, tiny_model
from tests.kv.accounts import Audit
from tests.kv.test_engine import BLOCK, PLAIN, document

pytestmark = pytest.mark.engine

BUDGET, BUFFER = 64, 32
LIMIT = BUDGET + BUFFER
POLICY = f"r1kv {{ budget = {BUDGET} buffer = {BUFFER} }}"
MOST = -(-LIMIT // BLOCK)
# The second runner under an interpreter takes its time.
RUNNERS = pytest.mark.parametrize(
    "runner", ["traced", pytest.param("B", marks=pytest.mark.slow, id="second")]
)
FEW = {"traced": 12, "B": 8}
ROOM: dict[str, Any] = {"block_size": BLOCK, "max_model_len": 512, "max_num_seqs": 8}


def drawn(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(3, VOCABULARY) for _ in range(length)]


def mixed(count: int, seed: int = 11) -> list[Ask]:
    """Return requests of all lengths, most with a prefix of others, a third of them `off`."""
    rng = random.Random(seed)
    prefixes = [drawn(rng, rng.randrange(20, 200)) for _ in range(max(3, count // 8))]
    return [
        Ask(
            rng.choice(prefixes) + drawn(rng, rng.randrange(1, 60)),
            tokens=rng.choice([4, 40, 120, 200]),
            kv="off" if i % 3 == 2 else None,
            sampling=PLAIN,
            arrives=i // 2,
        )
        for i in range(count)
    ]


def same(found: Sequence[Answer], wanted: Sequence[Answer]) -> list[int]:
    """Return which answers have other tokens."""
    pairs = enumerate(zip(found, wanted, strict=True))
    return [i for i, (one, other) in pairs if one.ids != other.ids]


def assert_sound(audit: Audit) -> None:
    assert audit.wrong == []
    assert audit.most_held <= MOST


@RUNNERS
@pytest.mark.parametrize("cached", [pytest.param(False, marks=pytest.mark.slow), True])
def test_every_answer_is_the_one_it_has_alone(tmp_path: Path, runner: str, cached: bool) -> None:
    """On a pool for a few whole requests: preempted ones are compacted at the same counts."""
    model, asks = tiny_model("llama"), mixed(16)
    room = {**ROOM, "enable_prefix_caching": cached, "num_gpu_blocks_override": 18}
    with EngineHost(runner, model, [document(tmp_path, POLICY)], **room) as engine:
        alone = engine.alone(asks)
        if cached:
            engine.call("empty_cache")
        engine.call("account", LIMIT)
        together = engine.answers(asks)
        audit, seen = engine.call("audited"), engine.seen()
        assert same(together, alone) == []
        assert_sound(audit)
        assert audit.compacted > 5
        assert seen.preempted > 0
        engine.call("empty_cache")  # every block was given back
        assert not cached or sum(one.cached or 0 for one in together) > 0


@RUNNERS
def test_requests_that_say_off_are_answered_as_by_stock(tmp_path: Path, runner: str) -> None:
    model = tiny_model("llama")
    asks = [replace(one, kv="off") for one in mixed(FEW[runner])]
    room = {**ROOM, "enable_prefix_caching": True}
    with EngineHost(runner, model, **room) as stock:
        wanted = stock.answers([replace(one, kv=None) for one in asks])
    with EngineHost(runner, model, [document(tmp_path, POLICY)], **room) as engine:
        assert engine.answers(asks) == wanted


Wish: TypeAlias = tuple[str | None, str | None]  # the expression, and `intervention_kv`


PROGRAMS = """
program thinks { kv on }
program plain { }
program terse { kv off }
"""


@pytest.mark.parametrize(
    ("said", "compressed", "left"),
    [
        (
            "default = off }" + PROGRAMS,
            [(None, "on"), ("thinks", None), ("plain + thinks*2", None), ("terse", "on")],
            [(None, None), ("plain", None), ("thinks", "off"), ("thinks*0", None), ("off", None)],
        ),
        (
            "default = off }" + PROGRAMS + "default thinks",
            [(None, None), ("off", "on")],
            [("off", None), (None, "off"), ("plain", None)],
        ),
        (
            "default = on }" + PROGRAMS + "default terse",
            [("off", None), ("plain", None), (None, "on")],
            [(None, None), ("plain + terse", None), ("thinks", "off")],
        ),
    ],
)
def test_who_is_compressed(
    tmp_path: Path, said: str, compressed: Sequence[Wish], left: Sequence[Wish]
) -> None:
    """What the client says goes first, then what its programs say, then what the policy says."""
    # The prompt is cut once, before the second token that is fed back.
    model, prompt = tiny_model("llama"), drawn(random.Random(1), LIMIT)
    path = document(tmp_path, POLICY.replace("}", said))
    with EngineHost("traced", model, [path], **ROOM) as engine:
        for wishes, each in ((left, 0), (compressed, 1)):
            engine.call("account", LIMIT)
            for program, kv in wishes:
                before = engine.call("audited").counts[0]
                engine.answers([Ask(prompt, program, tokens=4, kv=kv, sampling=PLAIN)])
                assert engine.call("audited").counts[0] - before == each, (program, kv)


@RUNNERS
@pytest.mark.parametrize("chunk", [7, pytest.param(48, marks=pytest.mark.slow)])
def test_chunks_change_nothing(tmp_path: Path, runner: str, chunk: int) -> None:
    model, asks = tiny_model("llama"), mixed(FEW[runner])
    # A prompt that is in the cache is not read in chunks.
    room = {**ROOM, "enable_prefix_caching": False}
    for text in (POLICY, POLICY.replace("}", "prefill = on }")):
        with EngineHost(runner, model, [document(tmp_path, text)], **room) as engine:
            wanted = engine.answers(asks)
            engine.call("chunk", chunk)
            assert same(engine.answers(asks), wanted) == []
            assert engine.seen().chunks > 2


def test_a_prompt_may_be_compressed_while_it_is_read(tmp_path: Path) -> None:
    model = tiny_model("llama")
    asked = Ask(drawn(random.Random(1), 400), tokens=20, sampling=PLAIN)
    path = document(tmp_path, POLICY.replace("}", "prefill = on }"))
    with EngineHost("traced", model, [path], **ROOM) as engine:
        engine.call("account", LIMIT)
        engine.answers([asked])
        audit = engine.call("audited")
        # Every step's blocks but the first's are those of a compacted request.
        assert min(audit.free) >= audit.free[-1] - MOST
        assert audit.counts[0] == 1 + (419 - 1 - LIMIT) // BUFFER


@RUNNERS
def test_samples_and_asynchronous_scheduling(tmp_path: Path, runner: str) -> None:
    model, asks = tiny_model("llama"), mixed(FEW[runner])
    path = document(tmp_path, POLICY)
    samples = {"n": 3, "temperature": 0.8, "seed": 5, **PLAIN}
    several = Ask(asks[0].prompt, tokens=150, sampling=samples)
    room = {**ROOM, "enable_prefix_caching": True}
    with EngineHost(runner, model, [path], **room) as engine:
        wanted, (drawn_ones,) = engine.answers(asks), engine.ask([several])
    with EngineHost(runner, model, [path], async_scheduling=True, **room) as engine:
        assert engine.call("facts")["async"]
        engine.call("account", LIMIT)
        assert same(engine.answers(asks), wanted) == []
        (again,) = engine.ask([several])
        assert same(again, drawn_ones) == []
        assert_sound(engine.call("audited"))


@pytest.mark.slow
def test_a_soak_with_cancellations(tmp_path: Path) -> None:
    model, asks = tiny_model("llama"), mixed(300, seed=3)
    rng = random.Random(4)
    leaving = [
        replace(one, leaves=one.arrives + rng.randrange(1, 120)) if rng.random() < 0.2 else one
        for one in asks
    ]
    room = {**ROOM, "enable_prefix_caching": True, "num_gpu_blocks_override": 24}
    with EngineHost("traced", model, [document(tmp_path, POLICY)], **room) as engine:
        alone = engine.alone(asks)
        engine.call("empty_cache")
        engine.call("account", LIMIT)
        together = engine.ask(leaving)
        audit = engine.call("audited")
        pairs = list(zip(together, alone, strict=True))
        wrong = [i for i, (some, one) in enumerate(pairs) if some and some[0].ids != one.ids]
        assert wrong == []
        assert_sound(audit)
        assert engine.seen().preempted > 10
        engine.call("empty_cache")  # every block was given back
