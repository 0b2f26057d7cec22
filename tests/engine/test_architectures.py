"""One edit of each kind at each site on tiny random models of eight architectures.

Sites are found in the captured graph; nothing in the package names an architecture.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from interv.document.spec import Spec
from tests.engine.host import EngineError, EngineHost
from tests.engine.models import HIDDEN_SIZE, LAYERS, tiny_model, weightless_model
from tests.engine.oracle import Oracle
from tests.engine.programs import KINDS, SITES, VECTORS, Directions, edit, program, save_document
from tests.tolerances import ENGINE_LOGPROB

pytestmark = pytest.mark.engine

# Each has what no other one has: four norms a block, learned positions and biases, attention and
# MLP side by side.
ARCHITECTURES = ("gemma3", "gpt2", "cohere")
# One of these mixes tokens by convolution in every other block, one has blocks of one mixer each.
SLOW = ("qwen3", "mixtral", "olmo2", "lfm2", "nemotron_h")
NO_POST_ATTN = {"cohere", "nemotron_h"}
# Those whose norms add the residual, in vLLM one op.
JOINING = ("qwen3", "gemma3", "mixtral")
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [100, 200, 300, 400]]
Places = Sequence[tuple[str, str]]  # kind of edit and site
# One layer a kind and site: first, middle and last are covered on the real model.
LAYER = dict(zip(KINDS, (0, 1, 2, LAYERS - 1), strict=True))


def sites(name: str) -> tuple[str, ...]:
    return tuple(s for s in SITES if not (name in NO_POST_ATTN and s == "post_attn"))


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


# An architecture, a site that it lacks, why (a pattern), and what its block has.
REFUSED = [
    (
        "cohere",
        "post_attn[2]",
        "its attention and its MLP read the same input, side by side",
        "pre_attn, post_block",
    ),
    (
        "iquest_loopcoder",
        "pre_attn[2]",
        "block 2 runs 2 times in a pass, so it is no one place",
        "",
    ),
    ("nemotron_h", "post_attn[2]", "this block has no attention", "pre_attn, post_block"),
    (
        "zamba2",
        "post_block[2]",
        r"'original_hidden_states' and '\w+' cross here and are never summed",
        "",
    ),
    (
        "gemma3n",
        "post_block[2]",
        r"what crosses here is not one stream: '\w+' is \[4, T, 128\]",
        "",
    ),
]


@pytest.mark.parametrize(
    ("name", "site", "reason", "here"),
    [
        pytest.param(*one, marks=pytest.mark.slow) if number > 1 else one
        for number, one in enumerate(REFUSED)
    ],
    ids=[one[0] for one in REFUSED],
)
def test_a_site_that_a_model_lacks_is_refused_with_the_reason(
    tmp_path: Path, name: str, site: str, reason: str, here: str
) -> None:
    with pytest.raises(EngineError) as failed:
        refused(tmp_path, name, site.split("[")[0])
    document = re.escape(f"{tmp_path}/document.json")
    expected = (
        rf"error\[E521\]: this model has no site {re.escape(site)}\n"
        rf"  = {re.escape(site)} is declared at {document}:programs\.0\.statements\.0\n"
        rf"  = {reason}\n"
        rf"  = sites of block 2: {here or 'none'}\n"
    )
    assert re.search(expected, str(failed.value)), str(failed.value)[-1000:]


def test_the_stock_compiler_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as failed:
        refused(tmp_path, "cohere", "pre_attn", compilation_config={"mode": 1})
    assert (
        "error[E503]: interventions are not supported with "
        "compilation mode 1 (STOCK_TORCH_COMPILE) yet\n"
    ) in str(failed.value)


def refused(folder: Path, name: str, site: str, **options: Any) -> None:
    """Start an engine that is expected to refuse its document."""
    Directions.random(HIDDEN_SIZE, norm=5.0).save(folder)
    spec = Spec(vectors=VECTORS, programs=(program("steer", site, 2, "p"),), default="p")
    model, path = weightless_model(name), save_document(spec, folder)
    EngineHost("traced", model, files=[path], load_format="dummy", **options).close()
