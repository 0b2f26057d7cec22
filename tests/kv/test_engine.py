"""A KV policy on a real engine, against Transformers with the same policy step by step."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.engine.answer import Ask
from tests.engine.host import EngineHost
from tests.engine.models import VOCABULARY, tiny_model
from tests.kv.oracle import CompressedOracle
from tests.kv.reference import Numbers

pytestmark = [pytest.mark.engine, pytest.mark.versions]

BLOCK = 32
ROOM = {"block_size": BLOCK, "max_model_len": 1024, "enable_prefix_caching": True}
QUESTIONS = (
    "Tell a long story about a lighthouse keeper and the sea.",
    "Explain step by step how a bicycle stays upright, and give examples.",
    "List the planets of the solar system and say something about each of them.",
)


def document(folder: Path, text: str) -> Path:
    path = folder / "kv.interv"
    path.write_text(f"interv 1\nkv {text}\n")
    return path


def prompts(model: Path) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": one}], add_generation_prompt=True, return_dict=False
        )
        for one in QUESTIONS
    ]


@pytest.fixture(scope="module")
def oracle(model_path: Path) -> CompressedOracle:
    return CompressedOracle(model_path)


# The oracle runs a step at a time, so the usual run has one prompt and half of the tokens.
ONE = (64, 16, 1, 256)
WIDE = [(b, more, 3, 512) for b in (64, 128, 256) for more in (16, 64)]


@pytest.mark.parametrize(
    ("budget", "buffer", "count", "tokens"),
    [ONE, *(pytest.param(*one, marks=pytest.mark.slow) for one in WIDE)],
)
def test_answers_are_those_of_transformers(
    tmp_path: Path,
    model_path: Path,
    oracle: CompressedOracle,
    budget: int,
    buffer: int,
    count: int,
    tokens: int,
) -> None:
    asked = prompts(model_path)[:count]
    path = document(tmp_path, f"r1kv {{ budget = {budget} buffer = {buffer} }}")
    with EngineHost("traced", model_path, [path], **ROOM) as engine:
        found = engine.answers([Ask(one, tokens=tokens, sampling=PLAIN) for one in asked])
    for prompt, answer in zip(asked, found, strict=True):
        ids, points = oracle.greedy(prompt, tokens, Numbers(budget), buffer)
        assert len(points) > 3
        assert answer.ids == ids


# Neither log-probabilities of the prompt, which keep it from being cached, nor of the answer.
PLAIN = {"prompt_logprobs": None}


def test_a_budget_beyond_the_text_changes_nothing(tmp_path: Path, model_path: Path) -> None:
    asks = [Ask(one, tokens=60) for one in prompts(model_path)]
    path = document(tmp_path, "r1kv { budget = 900 buffer = 100 }")
    with EngineHost("traced", model_path, **ROOM) as stock:
        wanted = stock.answers(asks)
    with EngineHost("traced", model_path, [path], **ROOM) as engine:
        engine.call("account", 1000)
        assert engine.answers(asks) == wanted  # log-probabilities bit by bit
        assert engine.call("audited").counts == [0, 0, 0, 0]


def test_policies_and_scopes(tmp_path: Path) -> None:
    model, rng = tiny_model("llama"), random.Random(3)
    prompt = [rng.randrange(3, VOCABULARY) for _ in range(30)]
    oracle, room = CompressedOracle(model), {**ROOM, "max_model_len": 512}
    for text, numbers in {
        "r1kv { budget = 64 buffer = 64 scope = per_layer }": Numbers(64, per_layer=True),
        "snapkv { budget = 64 buffer = 64 kernel = 5 }": Numbers(64, kernel=5, weight=1.0),
        "streaming { budget = 64 buffer = 64 }": Numbers(64, sinks=4),
    }.items():
        with EngineHost("traced", model, [document(tmp_path, text)], **room) as engine:
            (found,) = engine.answers([Ask(prompt, tokens=200, sampling=PLAIN)])
        assert found.ids == oracle.greedy(prompt, 200, numbers, 64)[0], text


def test_a_compiled_model_answers_the_same(tmp_path: Path) -> None:
    model, rng = tiny_model("llama"), random.Random(4)
    asked = [[rng.randrange(3, VOCABULARY) for _ in range(n)] for n in (9, 150)]
    oracle, path = CompressedOracle(model), document(tmp_path, "r1kv { budget = 64 buffer = 32 }")
    with EngineHost("inductor", model, [path], block_size=BLOCK) as engine:
        found = engine.answers([Ask(one, tokens=200, sampling=PLAIN) for one in asked])
    for prompt, answer in zip(asked, found, strict=True):
        assert answer.ids == oracle.greedy(prompt, 200, Numbers(64), 32)[0]


@pytest.mark.parametrize(
    ("flavour", "tokens"), [("B", 90), pytest.param("triton", 60, marks=pytest.mark.slow)]
)
def test_the_second_runner_answers_the_same(tmp_path: Path, flavour: str, tokens: int) -> None:
    model, rng = tiny_model("llama"), random.Random(4)
    asked = [[rng.randrange(3, VOCABULARY) for _ in range(n)] for n in (9, 70)]
    oracle, path = CompressedOracle(model), document(tmp_path, "r1kv { budget = 32 buffer = 16 }")
    with EngineHost(flavour, model, [path], block_size=BLOCK) as engine:
        found = engine.answers([Ask(one, tokens=tokens, sampling=PLAIN) for one in asked])
    for prompt, answer in zip(asked, found, strict=True):
        ids, points = oracle.greedy(prompt, tokens, Numbers(32), 16)
        assert len(points) > 1
        assert answer.ids == ids


@pytest.mark.slow
def test_two_ranks_answer_as_one(tmp_path: Path) -> None:
    """Each rank scores the heads that it has: what a head keeps does not depend on the others."""
    model, rng = tiny_model("llama"), random.Random(5)
    prompts = [[rng.randrange(3, VOCABULARY) for _ in range(n)] for n in (9, 70, 150)]
    asks = [Ask(one, tokens=150, sampling=PLAIN) for one in prompts]
    path = document(tmp_path, "r1kv { budget = 64 buffer = 32 }")
    room = {"block_size": BLOCK, "enable_prefix_caching": True, "async_scheduling": False}
    with EngineHost("traced", model, [path], **room) as engine:
        wanted = engine.answers(asks)
    two = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    ranks = {**room, "tensor_parallel_size": 2}
    with EngineHost("traced", model, [path], env=two, **ranks) as engine:
        engine.call("account", 96)
        found = engine.answers(asks)
        audit = engine.call("audited")
    assert [one.ids for one in found] == [one.ids for one in wanted]
    assert audit.wrong == []
    assert audit.compacted == len(asks)
