"""Preemption, speculation and asynchronous scheduling change no answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.engine.answer import Answer, Ask, Seen
from tests.engine.host import EngineHost
from tests.engine.mixture import Expected, mixture, unsaid, write_document
from tests.engine.models import tiny_model
from tests.engine.pairs import Pair, assert_as_stable_as_stock
from tests.tolerances import ENGINE_LOGPROB

pytestmark = [pytest.mark.engine, pytest.mark.versions]

# The cache holds a few of the requests at their full length: the last ones are thrown out in the
# middle of their answers, and computed again from their first token.
SMALL = {"block_size": 32, "max_model_len": 128}
BLOCKS = {"traced": 24, "inductor": 24, "B": 10}
REQUESTS = {"traced": 16, "inductor": 16, "B": 6}
TOKENS = 40
# Short patterns, so that drafts are made from the first answers on.
NGRAM = {
    "method": "ngram",
    "num_speculative_tokens": 3,
    "prompt_lookup_max": 3,
    "prompt_lookup_min": 1,
}


@dataclass
class Run:
    """The answers of an engine to all requests together, and what was seen on the way."""

    answers: list[Answer]
    seen: Seen
    facts: dict[str, Any]


@dataclass
class Rig:
    flavour: str
    model: Path
    document: Path
    asks: list[Ask]
    undisturbed: Pair  # stock, edited; each request alone
    crowded: tuple[Run, Run]  # stock, edited; more requests than the cache holds

    def run(self, **options: Any) -> tuple[Run, Run]:
        """Run all requests on an engine with other options, without and with the document."""
        return (
            run(self.flavour, self.model, None, unsaid(self.asks), **options)[0],
            run(self.flavour, self.model, self.document, self.asks, **options)[0],
        )

    def same(self, runs: tuple[Run, Run], what: str) -> None:
        stock, edited = runs
        assert_as_stable_as_stock(
            Pair(self.undisturbed.one, stock.answers),
            Pair(self.undisturbed.other, edited.answers),
            what,
        )


def run(
    flavour: str,
    model: Path,
    document: Path | None,
    asks: list[Ask],
    alone: bool = False,
    **options: Any,
) -> tuple[Run, list[Answer]]:
    files = None if document is None else [document]
    with EngineHost(flavour, model, files=files, **SMALL, **options) as engine:
        singly = engine.alone(asks) if alone else []
        answers = engine.answers(asks)
        return Run(answers, engine.seen(), engine.call("facts")), singly


@pytest.fixture(
    scope="module",
    params=[
        "traced",
        pytest.param("B", marks=pytest.mark.slow),
        pytest.param("inductor", marks=pytest.mark.slow),
    ],
)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    flavour = request.param
    folder = tmp_path_factory.mktemp("scheduling")
    document, model = write_document(folder), tiny_model("llama")
    asks = [replace(ask, tokens=TOKENS) for ask in mixture(REQUESTS[flavour], longest=30)]
    blocks = {"num_gpu_blocks_override": BLOCKS[flavour], "alone": True}
    stock, one = run(flavour, model, None, unsaid(asks), **blocks)
    edited, other = run(flavour, model, document, asks, **blocks)
    return Rig(flavour, model, document, asks, Pair(one, other), (stock, edited))


def test_the_undisturbed_answers_are_what_the_programs_mean(rig: Rig) -> None:
    expected = Expected(rig.model, rig.document)
    for ask, answer in zip(rig.asks, rig.undisturbed.other, strict=True):
        meant = expected.follow(ask, answer.ids)
        assert answer.ids == meant.ids, ask
        assert answer.distance(meant) < ENGINE_LOGPROB, ask


def test_preemption_with_recompute(rig: Rig) -> None:
    for one in rig.crowded:
        assert one.facts["blocks"] == BLOCKS[rig.flavour]
        assert one.seen.preempted > 0
        assert one.seen.recomputed > 0
    rig.same(rig.crowded, "alone and preempted in the middle")


def test_ngram_speculation(rig: Rig) -> None:
    runs = rig.run(speculative_config=NGRAM)
    for one in runs:
        assert one.seen.drafted > one.seen.accepted > 0
    rig.same(runs, "alone and with n-gram drafts")


def test_asynchronous_scheduling(rig: Rig) -> None:
    runs = rig.run(async_scheduling=True)
    for one, other in zip(runs, rig.crowded, strict=True):
        assert (one.facts["async"], one.facts["scheduler"]) == (True, "AsyncScheduler")
        assert (other.facts["async"], other.facts["scheduler"]) == (False, "Scheduler")
    rig.same(runs, "alone and scheduled ahead")


@pytest.mark.slow
def test_priorities(rig: Rig) -> None:
    # The last to come run first, and throw out those that run already.
    asks = [replace(one, priority=-i, arrives=i) for i, one in enumerate(rig.asks)]
    options = {"scheduling_policy": "priority", "num_gpu_blocks_override": BLOCKS[rig.flavour]}
    runs = (
        run(rig.flavour, rig.model, None, unsaid(asks), **options)[0],
        run(rig.flavour, rig.model, rig.document, asks, **options)[0],
    )
    for one in runs:
        assert one.seen.preempted > 0
    rig.same(runs, "alone and by priority")


@pytest.mark.slow
def test_preemption_under_asynchronous_scheduling(rig: Rig) -> None:
    runs = rig.run(async_scheduling=True, num_gpu_blocks_override=BLOCKS[rig.flavour])
    for one in runs:
        assert one.facts["async"]
        assert one.seen.preempted > 0
    rig.same(runs, "alone and preempted while scheduled ahead")


@pytest.mark.slow
def test_everything_at_once(rig: Rig) -> None:
    runs = rig.run(
        speculative_config=NGRAM,
        num_gpu_blocks_override=10,
        long_prefill_token_threshold=7,
        slots=5,
    )
    for one in runs:
        assert one.seen.preempted > 0
        assert one.seen.accepted > 0
        assert one.seen.chunks > 1
    rig.same(runs, "alone and with little room, few slots, drafts and chunks")
