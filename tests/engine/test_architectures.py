"""One edit of each kind at each site on tiny random models of six architectures.

Sites are found in the captured graph; nothing in the package names an architecture.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from interv.spec import Spec
from tests.engine.host import EngineError, EngineHost
from tests.engine.models import HIDDEN_SIZE, LAYERS, tiny_model
from tests.engine.oracle import Oracle
from tests.engine.programs import KINDS, SITES, VECTORS, Directions, edit, program, save_document
from tests.tolerances import ENGINE_LOGPROB

pytestmark = pytest.mark.engine

ARCHITECTURES = ("qwen3", "gemma3", "mixtral", "gpt2", "olmo2", "cohere")
PARALLEL = {"cohere"}
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [100, 200, 300, 400]]
# One layer a kind and site: first, middle and last are covered on the real model.
LAYER = dict(zip(KINDS, (0, 1, 2, LAYERS - 1), strict=True))


def sites(name: str) -> tuple[str, ...]:
    return tuple(s for s in SITES if not (name in PARALLEL and s == "post_attn"))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    Directions.random(HIDDEN_SIZE, norm=5.0).save(folder)
    tiny_model(request.param, folder)
    return request.param, folder


@pytest.mark.parametrize("flavour", ["traced", pytest.param("B", marks=pytest.mark.slow)])
def test_every_kind_at_every_site_equals_the_oracle(model: tuple[str, Path], flavour: str) -> None:
    name, folder = model
    programs = [program(k, s, LAYER[k]) for s in sites(name) for k in KINDS]
    spec = Spec(vectors=VECTORS, programs=tuple(programs), default=programs[0].name)
    oracle, directions = Oracle(folder / name), Directions.random(HIDDEN_SIZE, norm=5.0)
    with EngineHost(flavour, folder / name, files=[save_document(spec, folder)]) as engine:
        for site in sites(name):
            for kind in KINDS:
                where = f"{kind}_{site}_{LAYER[kind]}"
                change = {(site, LAYER[kind]): edit(kind, directions)}
                answers = engine.generate(PROMPTS, 4, program=where)
                for prompt, answer in zip(PROMPTS, answers, strict=True):
                    expected = oracle.follow(prompt, answer.ids, change)
                    assert answer.ids == expected.ids, where
                    assert answer.distance(expected) < ENGINE_LOGPROB, where
        assert min(engine.call("edited")) > 0


def test_a_parallel_block_has_no_post_attn(tmp_path: Path) -> None:
    Directions.random(HIDDEN_SIZE, norm=5.0).save(tmp_path)
    spec = Spec(vectors=VECTORS, programs=(program("steer", "post_attn", 2, "p"),), default="p")
    path = save_document(spec, tmp_path)
    with pytest.raises(EngineError) as failed:
        EngineHost("traced", tiny_model("cohere", tmp_path), files=[path])
    assert (
        "error[E521]: this model has no site post_attn[2]\n"
        f"  = post_attn[2] is declared at {path}:programs.0.statements.0\n"
        "  = its attention and its MLP read the same input, side by side\n"
        "  = sites of block 2: pre_attn, post_block\n"
    ) in str(failed.value)
