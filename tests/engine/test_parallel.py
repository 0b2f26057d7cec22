"""A model on several workers: edits at every site, and reports that count each row once."""

from __future__ import annotations

from pathlib import Path

import pytest

from interv.document.spec import Spec
from tests.engine.answer import Ask
from tests.engine.host import EngineHost
from tests.engine.models import HIDDEN_SIZE, tiny_model
from tests.engine.oracle import Oracle
from tests.engine.programs import SITES, VECTORS, Directions, edit, program, save_document
from tests.tolerances import ENGINE_LOGPROB

pytestmark = [pytest.mark.engine, pytest.mark.slow]

# Prompts of several lengths: what a stage loses is told from what it counts twice.
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [100, 200, 300, 400], [9] * 23]
TOKENS = 8


def check(
    model: Path, width: int, layers: tuple[int, ...], folder: Path, **options: object
) -> None:
    """Compare answers and reports of an engine with one edit at each site of some layers."""
    directions = Directions.random(width, norm=5.0)
    directions.save(folder)
    places = [(site, layer) for layer in layers for site in SITES]
    programs = tuple(program("steer", *place, name=f"{place[0]}_{place[1]}") for place in places)
    path = save_document(Spec(vectors=VECTORS, programs=programs, default=programs[0].name), folder)
    asks = [
        Ask(prompt, f"{site}_{layer}", TOKENS, report=True)
        for site, layer in places
        for prompt in PROMPTS
    ]
    threads = {
        "VLLM_CPU_OMP_THREADS_BIND": "0|1|1" if options.get("tensor_parallel_size") else "0|1"
    }
    with EngineHost("traced", model, [path], env=threads, **options) as engine:
        answers = iter(engine.answers(asks))
    oracle = Oracle(model)
    for site, layer in places:
        for prompt in PROMPTS:
            answer = next(answers)
            change = {(site, layer): edit("steer", directions)}
            expected = oracle.follow(prompt, answer.ids, change)
            assert answer.ids == expected.ids, (site, layer)
            assert answer.distance(expected) < ENGINE_LOGPROB, (site, layer)
            rows = len(prompt) + TOKENS - 1
            assert answer.edited == {f"{site}_{layer}": {f"{site}[{layer}]": rows}}


def test_three_ranks_of_a_tensor_parallel_group(tmp_path: Path, model_path: Path) -> None:
    """Each rank has three of nine heads: the branches are sums, written where the first one was."""
    check(model_path, 576, (15,), tmp_path, tensor_parallel_size=3)


def test_two_stages_of_a_pipeline(tmp_path: Path) -> None:
    """The first stage has run a prompt before the second one hears of the request."""
    check(tiny_model("llama"), HIDDEN_SIZE, (0, 3), tmp_path, pipeline_parallel_size=2)
