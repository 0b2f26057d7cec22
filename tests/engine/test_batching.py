"""No request's answer depends on who else is in the batch, or on how its prompt was chunked."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.engine.answer import Ask
from tests.engine.host import EngineHost
from tests.engine.mixture import Expected, mixture, unsaid, write_document
from tests.engine.models import tiny_model
from tests.engine.pairs import Pair, assert_as_stable_as_stock
from tests.tolerances import ENGINE_LOGPROB

pytestmark = pytest.mark.engine

# Engine B interprets its kernels, so that it gets fewer requests; engine A gets a full batch.
FULL = {"count": 64, "tokens": 8, "longest": 40}
SIZES = {"B": {"count": 8, "tokens": 6, "longest": 20}, "real": {**FULL, "count": 16}}
SAMPLED = {"B": 2}
CHUNKS = (1, 7, 16)


@dataclass
class Rig:
    """The same engine without and with the document, and what both say to requests alone."""

    flavour: str
    stock: EngineHost
    edited: EngineHost
    asks: list[Ask]
    alone: Pair  # stock, edited
    expected: Expected

    def same(self, asks: list[Ask], what: str, beside: Sequence[Ask] = ()) -> None:
        """Run the requests together, and assert that each answer is the one it gets alone.

        Nothing is asked of the answers to those `beside` them.
        """
        stock, edited = (
            engine.answers([*one, *beside])[: len(asks)]
            for engine, one in ((self.stock, unsaid(asks)), (self.edited, asks))
        )
        order = {id(ask.prompt): i for i, ask in enumerate(self.asks)}
        at = [order[id(ask.prompt)] for ask in asks]
        assert_as_stable_as_stock(
            Pair([self.alone.one[i] for i in at], stock),
            Pair([self.alone.other[i] for i in at], edited),
            what,
        )


SLOW = pytest.mark.slow


# Stock vLLM is equal to the last bit on the tiny model; on the real one it is not.
@pytest.fixture(
    scope="module",
    params=["traced", *(pytest.param(one, marks=SLOW) for one in ("B", "inductor", "real"))],
)
def rig(
    request: pytest.FixtureRequest, model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("batching")
    if request.param == "real":
        flavour, model, document = "traced", model_path, write_document(folder, 576, norm=20.0)
    else:
        flavour, model = request.param, tiny_model("llama")
        document = write_document(folder)
    asks = mixture(**SIZES.get(request.param, FULL))
    with (
        EngineHost(flavour, model) as stock,
        EngineHost(flavour, model, files=[document]) as edited,
    ):
        alone = Pair(stock.alone(unsaid(asks)), edited.alone(asks))
        yield Rig(request.param, stock, edited, asks, alone, Expected(model, document))


def test_each_answer_is_the_one_that_its_programs_mean(rig: Rig) -> None:
    for ask, stock, edited in zip(rig.asks, rig.alone.one, rig.alone.other, strict=True):
        expected = rig.expected.follow(ask, edited.ids)
        assert edited.ids == expected.ids, ask
        assert edited.distance(expected) < ENGINE_LOGPROB, ask
        if ask.program == "off":
            assert edited == stock
        elif edited.ids == stock.ids:
            assert edited.distance(stock) > 10 * ENGINE_LOGPROB, ask


def test_a_batch_of_different_programs_in_both_orders(rig: Rig) -> None:
    rig.same(rig.asks, "alone and in a batch")
    assert rig.edited.seen().peak_running == len(rig.asks)
    rig.same(rig.asks[::-1], "alone and in the reversed batch")


@pytest.mark.parametrize("chunk", CHUNKS)
def test_prompts_in_chunks(rig: Rig, chunk: int) -> None:
    chunks = -(-max(len(ask.prompt) for ask in rig.asks) // chunk)
    # vLLM does not cut the prompt of a request that has the engine for itself.
    company = Ask([3], tokens=chunks + 1)
    try:
        for engine in (rig.stock, rig.edited):
            engine.call("chunk", chunk)
        rig.same(rig.asks, f"whole prompts alone and chunks of {chunk} in a batch", [company])
        assert rig.edited.seen().chunks == rig.stock.seen().chunks == chunks
    finally:
        for engine in (rig.stock, rig.edited):
            engine.call("chunk", 0)


def test_requests_join_and_finish_in_the_middle(rig: Rig) -> None:
    rng = random.Random(1)
    last = 2 * max(ask.tokens for ask in rig.asks)
    waves = [replace(ask, arrives=rng.randrange(last)) for ask in rig.asks]
    rig.same(waves, "alone and in a batch that others join and leave")
    seen = rig.edited.seen()
    assert 1 < seen.peak_running < len(rig.asks)
    assert seen.steps > max(ask.tokens for ask in rig.asks)


def test_a_cancelled_request_leaves_the_others_as_they_are(rig: Rig) -> None:
    leaving = [replace(ask, leaves=2) for ask in rig.asks[::3]]
    staying = [ask for i, ask in enumerate(rig.asks) if i % 3]
    stock = rig.stock.ask(unsaid(staying) + unsaid(leaving))
    edited = rig.edited.ask(staying + leaving)
    kept = [i for i in range(len(rig.asks)) if i % 3]
    assert all(not samples for samples in edited[len(staying) :])
    assert_as_stable_as_stock(
        Pair([rig.alone.one[i] for i in kept], [only for (only,) in stock[: len(kept)]]),
        Pair([rig.alone.other[i] for i in kept], [only for (only,) in edited[: len(kept)]]),
        "alone and beside requests that are cancelled",
    )


def test_four_samples_are_four_requests(rig: Rig) -> None:
    some = rig.asks[: SAMPLED.get(rig.flavour, 6)]
    seeded = {"temperature": 1.0}

    def both(engine: EngineHost, asks: list[Ask]) -> Pair:
        together = [replace(ask, sampling={**seeded, "seed": 11, "n": 4}) for ask in asks]
        # vLLM gives sample k of a seeded request the seed plus k.
        single = [
            replace(ask, sampling={**seeded, "seed": 11 + k}) for ask in asks for k in range(4)
        ]
        samples = [one for samples in engine.ask(together) for one in samples]
        return Pair(engine.alone(single), samples)

    stock, edited = both(rig.stock, unsaid(some)), both(rig.edited, some)
    assert len({str(one.ids) for one in edited.one}) > len(some)
    assert_as_stable_as_stock(stock, edited, "four requests and one of four samples")
