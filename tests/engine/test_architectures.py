"""One edit of each kind at each site on tiny random models of six architectures.

Sites are found in the captured graph; nothing in the package names an architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from interv.spec import Spec
from tests.engine.host import EngineError, EngineHost
from tests.engine.models import HIDDEN_SIZE, LAYERS, tiny_model
from tests.engine.oracle import Oracle
from tests.engine.programs import KINDS, SITES, VECTORS, Directions, edit, program, save_document
from tests.tolerances import ENGINE_LOGPROB

pytestmark = pytest.mark.engine

# Each has what no other one has: four norms a block, learned positions and biases, attention and
# MLP side by side.
ARCHITECTURES = ("gemma3", "gpt2", "cohere")
SLOW = ("qwen3", "mixtral", "olmo2")
PARALLEL = {"cohere"}
# Those whose norms add the residual, in vLLM one op.
JOINING = ("qwen3", "gemma3", "mixtral")
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [100, 200, 300, 400]]
Places = Sequence[tuple[str, str]]  # kind of edit and site
# One layer a kind and site: first, middle and last are covered on the real model.
LAYER = dict(zip(KINDS, (0, 1, 2, LAYERS - 1), strict=True))


def sites(name: str) -> tuple[str, ...]:
    return tuple(s for s in SITES if not (name in PARALLEL and s == "post_attn"))


@pytest.fixture(
    scope="module",
    params=[*ARCHITECTURES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)],
)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    Directions.random(HIDDEN_SIZE, norm=5.0).save(folder)
    return request.param, folder


@pytest.mark.parametrize("flavour", ["traced", pytest.param("B", marks=pytest.mark.slow)])
def test_every_kind_at_every_site_equals_the_oracle(model: tuple[str, Path], flavour: str) -> None:
    name, folder = model
    places = [(kind, site) for site in sites(name) for kind in KINDS]
    with engine(flavour, name, folder, places) as edited:
        check(edited, Oracle(tiny_model(name)), places, tokens=4)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("qwen3", ("mixed",)),
        ("gemma3", ("mixed",)),
        *(pytest.param(name, KINDS, marks=pytest.mark.slow) for name in JOINING),
    ],
)
def test_an_update_and_its_norm_as_one_op_equal_the_oracle(
    tmp_path: Path, name: str, kinds: Sequence[str]
) -> None:
    Directions.random(HIDDEN_SIZE, norm=5.0).save(tmp_path)
    oracle = Oracle(tiny_model(name))
    places = [(kind, site) for site in SITES for kind in kinds]
    # The entry of a block is the end of the one before: of two updates there one joins the norm.
    # At the first block's entry none does, for there is no residual yet.
    norms = {(site == "post_attn", LAYER[kind] + (site == "post_block")) for kind, site in places}
    joined = len(norms - {(False, 0)})
    with engine("B", name, tmp_path, places, absorb_norm=True) as edited:
        assert f" {joined} updates joined the add-norm" in edited.log()
        check(edited, oracle, places, tokens=3)


def engine(flavour: str, name: str, folder: Path, places: Places, **options: Any) -> EngineHost:
    """Start an engine with a program for each kind of edit and site."""
    programs = [program(kind, site, LAYER[kind]) for kind, site in places]
    spec = Spec(vectors=VECTORS, programs=tuple(programs), default=programs[0].name)
    return EngineHost(flavour, tiny_model(name), files=[save_document(spec, folder)], **options)


def check(edited: EngineHost, oracle: Oracle, places: Places, tokens: int) -> None:
    """Compare the answers under each program with those of Transformers."""
    directions = Directions.random(HIDDEN_SIZE, norm=5.0)
    for kind, site in places:
        where = f"{kind}_{site}_{LAYER[kind]}"
        change = {(site, LAYER[kind]): edit(kind, directions)}
        answers = edited.generate(PROMPTS, tokens, program=where)
        for prompt, answer in zip(PROMPTS, answers, strict=True):
            expected = oracle.follow(prompt, answer.ids, change)
            assert answer.ids == expected.ids, where
            assert answer.distance(expected) < ENGINE_LOGPROB, where
    assert min(edited.call("edited")) > 0


def test_a_parallel_block_has_no_post_attn(tmp_path: Path) -> None:
    Directions.random(HIDDEN_SIZE, norm=5.0).save(tmp_path)
    spec = Spec(vectors=VECTORS, programs=(program("steer", "post_attn", 2, "p"),), default="p")
    path = save_document(spec, tmp_path)
    with pytest.raises(EngineError) as failed:
        EngineHost("traced", tiny_model("cohere"), files=[path])
    assert (
        "error[E521]: this model has no site post_attn[2]\n"
        f"  = post_attn[2] is declared at {path}:programs.0.statements.0\n"
        "  = its attention and its MLP read the same input, side by side\n"
        "  = sites of block 2: pre_attn, post_block\n"
    ) in str(failed.value)
