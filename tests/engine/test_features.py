"""Features of stock vLLM that share the model with interventions: each is as right as without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.engine.adapters import RANK, merge, save_adapter
from tests.engine.answer import Answer, Ask
from tests.engine.host import EngineHost
from tests.engine.mixture import Expected, write_document
from tests.engine.models import tiny_model
from tests.engine.oracle import Oracle
from tests.tolerances import ENGINE_LOGPROB

pytestmark = pytest.mark.engine

PROMPTS = ([5, 9, 40, 7, 11], [300, 3, 4, 5, 77, 12, 8], [21] * 9)
LORA = {"enable_lora": True, "max_lora_rank": 8, "max_loras": 2}


@dataclass
class Rig:
    engine: EngineHost
    adapters: tuple[str, str]
    expected: dict[str | None, Expected]  # by adapter

    def equals_the_oracle(self, ask: Ask, answer: Answer) -> None:
        meant = self.expected[ask.lora].follow(ask, answer.ids)
        assert answer.ids == meant.ids, ask
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


def asked(adapters: tuple[str, str]) -> list[Ask]:
    """Return requests with every adapter and none, under programs and none, in one batch."""
    programs = ("off", None, "steered*0.5 + cut*0.5", "marked")
    return [
        Ask(prompt, program, 6, lora=lora)
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
