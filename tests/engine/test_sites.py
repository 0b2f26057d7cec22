"""Every site, layer and kind of edit against Transformers with forward hooks, on both engines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from interv.document.spec import Spec
from tests.engine.answer import Answer, Ask
from tests.engine.host import EngineHost
from tests.engine.oracle import Oracle
from tests.engine.programs import KINDS, SITES, VECTORS, Directions, edit, program, save_document
from tests.tolerances import ENGINE_LOGPROB

pytestmark = pytest.mark.engine

PROMPTS = [
    [504, 3575, 282, 4649, 314],
    [28, 787, 638, 260, 1251, 282, 260, 905, 314, 253],
    [1, 4093, 198, 2683, 30],
]
# On B the interpreter takes a quarter of a second a token, and `mixed` has every kind in it.
TOKENS = {"inductor": 8, "B": 2}
LAYERS = (0, 15, 29)


@dataclass
class Rig:
    engine: EngineHost
    oracle: Oracle
    directions: Directions
    tokens: int
    kinds: tuple[str, ...]
    answers: dict[str, list[Answer]]  # by program, in the order of the prompts


@pytest.fixture(
    scope="module",
    params=[
        ("inductor", KINDS),
        ("B", ("mixed",)),
        pytest.param(("B", ("steer", "cap", "ablate")), marks=pytest.mark.slow),
    ],
    ids=lambda param: f"{param[0]}-{'-'.join(param[1])}",
)
def rig(
    request: pytest.FixtureRequest, model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("sites")
    directions = Directions.random(576, norm=5.0)
    directions.save(folder)
    flavour, kinds = request.param
    programs = [program(k, s, layer) for s in SITES for layer in LAYERS for k in kinds]
    spec = Spec(vectors=VECTORS, programs=tuple(programs), default=programs[0].name)
    path = save_document(spec, folder)
    tokens = TOKENS[flavour]
    # Every program at once: each request chooses its own.
    asks = [Ask(prompt, one.name, tokens) for one in programs for prompt in PROMPTS]
    with EngineHost(flavour, model_path, files=[path]) as engine:
        found = iter(engine.answers(asks))
        answers = {one.name: [next(found) for _ in PROMPTS] for one in programs}
        yield Rig(engine, Oracle(model_path), directions, tokens, kinds, answers)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("site", SITES)
def test_every_kind_of_edit_equals_the_oracle(rig: Rig, site: str, layer: int) -> None:
    for kind in rig.kinds:
        change = edit(kind, rig.directions)
        answers = rig.answers[f"{kind}_{site}_{layer}"]
        for prompt, answer in zip(PROMPTS, answers, strict=True):
            expected = rig.oracle.follow(prompt, answer.ids, {(site, layer): change})
            assert answer.ids == expected.ids, kind
            assert answer.distance(expected) < ENGINE_LOGPROB, kind


def test_an_edit_moves_the_answer(rig: Rig) -> None:
    stock = rig.engine.generate(PROMPTS, rig.tokens, program=None)
    for site in SITES:
        steered = rig.answers[f"{rig.kinds[0]}_{site}_15"]
        for before, after in zip(stock, steered, strict=True):
            assert before.distance(after) > 10 * ENGINE_LOGPROB


def test_the_engine_is_the_one_it_says(rig: Rig) -> None:
    facts = rig.engine.call("facts")
    second = facts["runner"] == "vllm.v1.worker.cpu.model_runner"
    assert second == (rig.tokens == TOKENS["B"])
    assert facts["mode"] == (3 if second else 2)
