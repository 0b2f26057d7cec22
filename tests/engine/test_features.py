"""Features of stock vLLM that share the model with interventions: each is as right as without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.adapters import merge, save_adapter
from tests.engine.answer import Answer, Ask
from tests.engine.host import EngineHost
from tests.engine.mixture import Expected, write_document
from tests.engine.models import HIDDEN_SIZE, tiny_model
from tests.engine.oracle import Oracle
from tests.engine.sharing import BLOCK
from tests.tolerances import ENGINE_LOGPROB

pytestmark = pytest.mark.engine

PROMPTS = ([5, 9, 40, 7, 11], [300, 3, 4, 5, 77, 12, 8], [21] * 9)
# With LoRA on a CPU, stock vLLM fails where log-probabilities of prompts are asked for.
UNSCORED = {"prompt_logprobs": None}
LORA = {"enable_lora": True, "max_lora_rank": 8, "max_loras": 3, "block_size": BLOCK}


@dataclass
class Rig:
    engine: EngineHost
    adapters: tuple[str, str]
    expected: dict[str | None, Expected]  # by adapter

    def equals_the_oracle(self, ask: Ask, answer: Answer) -> None:
        meant = self.expected[ask.lora].follow(ask, answer.ids)
        assert answer.ids == meant.ids, ask
        meant.prompt_logprobs = meant.prompt_logprobs if answer.prompt_logprobs else []
        assert answer.distance(meant) < ENGINE_LOGPROB, ask


@pytest.fixture(scope="module", params=["traced", pytest.param("B", marks=pytest.mark.slow)])
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder, model = tmp_path_factory.mktemp("features"), tiny_model("llama")
    document = write_document(folder)
    one, two = (save_adapter(folder / f"lora{i}", Oracle(model), i) for i in (1, 2))
    expected: dict[str | None, Expected] = {None: Expected(model, document)}
    for each in (one, two):
        expected[str(each)] = Expected(model, document)
        merge(expected[str(each)].oracle, each)
    with EngineHost(request.param, model, files=[document], inline=True, **LORA) as engine:
        yield Rig(engine, (str(one), str(two)), expected)


@dataclass
class Plain:
    engine: EngineHost
    document: Path

    def check(self, expected: Expected, program: str) -> None:
        """Compare answers of prompts under a program with those of a model."""
        asks = [Ask(prompt, program, 5) for prompt in PROMPTS]
        for ask, answer in zip(asks, self.engine.answers(asks), strict=True):
            meant = expected.follow(ask, answer.ids)
            assert answer.ids == meant.ids, ask
            assert answer.distance(meant) < ENGINE_LOGPROB, ask


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plain]:
    folder, model = tmp_path_factory.mktemp("plain"), tiny_model("llama")
    document = write_document(folder)
    options = {"enable_prompt_embeds": True, "enforce_eager": True}
    with EngineHost("traced", model, files=[document], inline=True, **options) as engine:
        yield Plain(engine, document)


def asked(adapters: tuple[str, str]) -> list[Ask]:
    """Return requests with every adapter and none, under programs and none, in one batch."""
    programs = ("off", None, "steered*0.5 + cut*0.5", "marked")
    return [
        Ask(prompt, program, 6, lora=lora, sampling=UNSCORED)
        for prompt in PROMPTS
        for program in programs
        for lora in (None, *adapters)
    ]


def test_lora_beside_programs_equals_the_oracle(rig: Rig) -> None:
    asks = asked(rig.adapters)
    # One at a time, so that a batch has an adapter or none, and then every mixture of both.
    alone, together = rig.engine.alone(asks), rig.engine.answers(asks)
    for ask, one, other in zip(asks, alone, together, strict=True):
        rig.equals_the_oracle(ask, one)
        rig.equals_the_oracle(ask, other)


def test_an_adapter_has_blocks_of_its_own_in_the_prefix_cache(rig: Rig) -> None:
    one, two = rig.adapters
    long = [7 + i % 90 for i in range(100)]
    # `steered` shares all blocks but the last token's, and each only with the same adapter.
    asks = [
        Ask(long, program, 2, lora=lora, sampling=UNSCORED, salt="lora")
        for lora in (None, one, two)
        for program in ("off", "steered", "cut", "off", "cut")
    ]
    answers = rig.engine.alone(asks)
    assert [one.cached for one in answers] == [0, 96, 0, 96, 96] * 3
    for ask, answer in zip(asks, answers, strict=True):
        rig.equals_the_oracle(ask, answer)


def test_a_prompt_of_embeddings_is_edited_as_its_ids_would_be(plain: Plain) -> None:
    table = Oracle(tiny_model("llama")).model.get_input_embeddings().weight.detach()
    for program in ("off", "steered", "held + near", "mixed"):
        ids = [Ask(one, program, 5, sampling=UNSCORED) for one in PROMPTS]
        embedded = [replace(one, embeds=table[one.prompt]) for one in ids]
        assert plain.engine.alone(embedded) == plain.engine.alone(ids)


UNKNOWN = """\
error[E534]: a prompt of embeddings has no tokens that 'token(…)' could select
  = a program of this request selects by the ids of tokens
  = send the prompt as text or ids
  = select by position: prompt[-1]"""


@pytest.mark.parametrize(
    "program",
    ["marked", "cut*0.5 + steered", "interv 1 program p { steer v at pre_attn[3] when token(3) }"],
)
def test_a_prompt_of_embeddings_has_no_token_to_select(plain: Plain, program: str) -> None:
    embeds = torch.zeros(3, HIDDEN_SIZE)
    assert plain.engine.call("refusal", program, embeds) == ("VLLMValidationError", UNKNOWN)


def test_weights_that_are_replaced_in_place(plain: Plain, tmp_path: Path) -> None:
    model = tiny_model("llama")
    other = Oracle(model)
    torch.manual_seed(3)
    for parameter in other.model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    other.model.save_pretrained(tmp_path / "other")
    plain.check(Expected(model, plain.document), "steered + cut*0.5")
    plain.engine.call("rpc", "reload_weights", {"weights_path": str(tmp_path / "other")})
    plain.engine.call("empty_cache")
    plain.check(Expected(tmp_path / "other", plain.document), "steered + cut*0.5")
    plain.engine.call("rpc", "reload_weights", {"weights_path": str(model)})
    plain.engine.call("empty_cache")
    plain.check(Expected(model, plain.document), "mixed")


@pytest.mark.parametrize("level", [0, 1, 2])
def test_an_engine_that_slept_in_the_middle_of_answers(plain: Plain, level: int) -> None:
    asks = [Ask(one, program, 8) for one in PROMPTS for program in ("off", "mixed", "held + near")]
    assert plain.engine.call("interrupted", asks, level) == plain.engine.answers(asks)


def test_what_shapes_the_sampling_changes_no_edit(plain: Plain) -> None:
    expected, allowed = Expected(tiny_model("llama"), plain.document), [11, 30, 77, 200]
    shapes: list[dict[str, Any]] = [
        {"allowed_token_ids": allowed},
        {"logit_bias": {one: 50.0 for one in allowed}},
        {"allowed_token_ids": allowed, "frequency_penalty": 2.0},
    ]
    for program in ("steered + cut*0.5", "mixed"):
        asks = [Ask(PROMPTS[0], program, 6, sampling=one) for one in shapes]
        for ask, answer in zip(asks, plain.engine.answers(asks), strict=True):
            assert set(answer.ids) <= set(allowed)
            # Log-probabilities are those of the model, before anything shapes them.
            assert answer.distance(expected.given(ask, answer.ids)) < ENGINE_LOGPROB, ask
