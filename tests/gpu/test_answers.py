"""Answers of an engine on a card: unedited is stock's, edited is Transformers' with hooks.

Without a card a CPU may stand in for it, to see that the tests themselves are right:
`INTERV_STANDIN=traced` (or `B`, the second runner).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.engine import capturing
from tests.engine.answer import Ask
from tests.engine.host import EngineHost
from tests.engine.models import HIDDEN_SIZE, VOCABULARY, tiny_model
from tests.engine.oracle import Oracle
from tests.engine.programs import Directions
from tests.engine.test_ops import DOCUMENT, Meaning, adapter, full_map
from tests.kv.oracle import CompressedOracle
from tests.kv.reference import Numbers
from tests.tolerances import CAPTURED, ENGINE_LOGPROB

FLAVOUR = "cuda" if torch.cuda.is_available() else os.environ.get("INTERV_STANDIN", "")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not FLAVOUR, reason="there is no card"),
]
TOKENS = 8
LENGTHS = (7, 4, 1, 33, 90, 18)


def prompts() -> list[list[int]]:
    rng = random.Random(5)
    return [[rng.randrange(3, VOCABULARY) for _ in range(n)] for n in LENGTHS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="module")
def meaning(folder: Path) -> Meaning:
    directions = Directions.random(HIDDEN_SIZE, norm=5.0)
    directions.save(folder)
    return Meaning(directions, adapter(folder), full_map(folder))


@pytest.fixture(scope="module")
def document(folder: Path, meaning: Meaning) -> Path:
    path = folder / "ops.interv"
    path.write_text(DOCUMENT)
    return path


@pytest.fixture(scope="module")
def graphs(document: Path) -> Iterator[EngineHost]:
    """An engine in full precision, with what vLLM does by default: compiled, in CUDA graphs."""
    with EngineHost(FLAVOUR, tiny_model("llama"), [document]) as engine:
        yield engine


def asked(names: list[str], tokens: int = TOKENS) -> list[Ask]:
    return [Ask(prompt, name, tokens) for name in names for prompt in prompts()]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_unedited_is_stock_bit_by_bit(document: Path, dtype: str) -> None:
    model, asks = tiny_model("llama"), [Ask(one, tokens=24) for one in prompts()]
    with EngineHost(FLAVOUR, model, plugins=False, dtype=dtype) as stock:
        wanted = stock.alone(asks) + stock.answers(asks)
    off = [Ask(one.prompt, "off", one.tokens) for one in asks]
    with EngineHost(FLAVOUR, model, [document], dtype=dtype) as engine:
        assert engine.alone(off) + engine.answers(off) == wanted


def test_every_op_equals_transformers_with_hooks(graphs: EngineHost, meaning: Meaning) -> None:
    programs, oracle = meaning.programs(), Oracle(tiny_model("llama"))
    found = iter(graphs.answers(asked([*programs])))
    for name, edits in programs.items():
        for prompt in prompts():
            answer = next(found)
            expected = oracle.follow(prompt, answer.ids, edits)
            assert answer.ids == expected.ids, name
            assert answer.distance(expected) < ENGINE_LOGPROB, name


def test_eager_answers_as_graphs_do(graphs: EngineHost, document: Path, meaning: Meaning) -> None:
    asks = asked(["off", *meaning.programs()])
    captured = graphs.answers(asks)
    with EngineHost(FLAVOUR, tiny_model("llama"), [document], enforce_eager=True) as engine:
        eager = engine.answers(asks)
    for one, other in zip(captured, eager, strict=True):
        assert one.ids == other.ids
        assert one.distance(other) < ENGINE_LOGPROB


def test_what_is_counted_is_what_was_edited(graphs: EngineHost) -> None:
    for program in ("kept", "replaced", "everything"):
        asks = [Ask(one, program, TOKENS, report=True) for one in prompts()]
        for ask, answer in zip(asks, graphs.answers(asks), strict=True):
            assert answer.edited is not None
            rows = sum(answer.edited[program].values())
            assert rows == len(ask.prompt) + TOKENS - 1


def test_captured_rows_are_hidden_states_of_transformers(tmp_path: Path) -> None:
    path, model = capturing.write_document(tmp_path), tiny_model("llama")
    expected, worst = capturing.Expected(model, tmp_path), 0.0
    asks = capturing.mixture(24)
    with EngineHost(FLAVOUR, model, [path]) as engine:
        for ask, samples in zip(asks, engine.call("capture", asks), strict=True):
            ((answer, records),) = samples
            wanted = expected.rows(ask, answer.ids)
            worst = max(worst, capturing.compare(records, wanted, ask))
    assert worst < CAPTURED


@pytest.mark.parametrize("text", ["r1kv { budget = 64 buffer = 32 }"])
def test_a_kv_policy_answers_as_transformers_with_it(tmp_path: Path, text: str) -> None:
    model, rng = tiny_model("llama"), random.Random(4)
    asks = [
        Ask([rng.randrange(3, VOCABULARY) for _ in range(n)], tokens=160, sampling=PLAIN)
        for n in (9, 150)
    ]
    path = tmp_path / "kv.interv"
    path.write_text(f"interv 1\nkv {text}\n")
    options = {"attention_backend": "TRITON_ATTN"} if FLAVOUR == "cuda" else {}
    with EngineHost(FLAVOUR, model, [path], block_size=32, **options) as engine:
        found = engine.answers(asks)
    oracle = CompressedOracle(model)
    for ask, answer in zip(asks, found, strict=True):
        assert answer.ids == oracle.greedy(ask.prompt, 160, Numbers(64), 32)[0]


# Neither log-probabilities of the prompt, which keep it from being cached, nor of the answer.
PLAIN = {"prompt_logprobs": None}
