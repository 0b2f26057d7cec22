"""Hundreds of requests on a small cache: whatever is found in it, every answer is its own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.engine.answer import Answer, Ask, Seen
from tests.engine.host import EngineHost
from tests.engine.mixture import unsaid
from tests.engine.models import HIDDEN_SIZE, VOCABULARY, tiny_model
from tests.engine.pairs import Pair, assert_as_stable_as_stock
from tests.engine.programs import Directions
from tests.engine.sharing import BLOCK

pytestmark = pytest.mark.engine

SELECTORS = ("prompt[-1]", "prompt[2:8]", "prompt[40:]", "generated", "token(7, 8, 9)")
SITES = ("pre_attn[2]", "post_block[1]", "post_attn[0]", "post_block[-1]")
PREFIXES, PROGRAMS = 30, 20
# Blocks of the cache for twelve requests of up to five blocks each, so that some are thrown out.
ROOM = {
    "enable_prefix_caching": True,
    "block_size": BLOCK,
    "max_num_seqs": 12,
    "num_gpu_blocks_override": 20,
}


@dataclass
class Run:
    """The answers to all requests alone, then all together, and what was seen then."""

    alone: list[Answer]
    together: list[Answer]
    seen: Seen


def write_document(folder: Path) -> Path:
    """Write twenty programs: every selector at every site."""
    Directions.random(HIDDEN_SIZE, 5.0).save(folder)
    made = [
        f"program p{i} {{ {_edit(i, site)} when {selector} }}\n"
        for i, (selector, site) in enumerate((a, b) for a in SELECTORS for b in SITES)
    ]
    assert len(made) == PROGRAMS
    path = folder / "soak.interv"
    vectors = 'interv 1\nvector v = "v.safetensors"\nvector w = "w.safetensors"\n'
    path.write_text(vectors + "".join(made))
    return path


def _edit(i: int, site: str) -> str:
    return (f"steer v at {site} scale 0.5", f"cap w at {site} in [-0.2, 0.2]")[i % 3 == 0]


def requests(count: int) -> list[Ask]:
    """Return requests that begin with a few prefixes, in the order in which they arrive.

    Many come more than once: what is cached of the first is there for the next, or thrown out.
    """
    rng = random.Random(3)

    def tokens(length: int) -> list[int]:
        return [rng.randrange(3, VOCABULARY) for _ in range(length)]

    # Prefixes of prefixes too: the later ones branch off from the earlier.
    prefixes = [tokens(rng.randrange(40, 120)) for _ in range(PREFIXES // 3)]
    while len(prefixes) < PREFIXES:
        one = rng.choice(prefixes)
        prefixes.append(one[: rng.randrange(20, len(one))] + tokens(20))
    programs = ["off", *(f"p{i}" for i in range(PROGRAMS))]
    different = [
        Ask(
            prefixes[i % PREFIXES] + tokens(rng.randrange(4)),
            programs[i % len(programs)],
            rng.randrange(24, 40) if i % 2 else rng.randrange(2, 6),
            sampling={"prompt_logprobs": None},
        )
        for i in range(count * 2 // 5)
    ]
    each = rng.sample(different, len(different))
    more = rng.choices(different, k=count - len(each))
    return [replace(one, arrives=i // 2) for i, one in enumerate([*each, *more])]


def run(model: Path, document: Path | None, asks: Sequence[Ask]) -> Run:
    files = None if document is None else [document]
    with EngineHost("traced", model, files, **ROOM) as engine:
        alone: dict[str, Answer] = {}
        for ask in asks:
            key = str(replace(ask, arrives=0))
            if key not in alone:
                engine.call("empty_cache")
                (alone[key],) = engine.alone([ask])
                assert alone[key].cached == 0
        engine.call("empty_cache")
        together = engine.answers(asks)
        singly = [alone[str(replace(ask, arrives=0))] for ask in asks]
        return Run(singly, together, engine.seen())


@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_every_answer_is_the_one_it_has_alone(tmp_path: Path, count: int) -> None:
    document, model = write_document(tmp_path), tiny_model("llama")
    asks = requests(count)
    edited, stock = run(model, document, asks), run(model, None, unsaid(asks))
    for one in (edited, stock):
        assert one.seen.evicted > 0
        assert one.seen.preempted > 0
        assert one.seen.recomputed > 0
        assert sum(answer.cached or 0 for answer in one.together) > count
    # Edits keep some requests from sharing.
    assert sum(a.cached for a in edited.together) < sum(a.cached for a in stock.together)
    assert_as_stable_as_stock(
        Pair(stock.alone, stock.together),
        Pair(edited.alone, edited.together),
        "alone on an empty cache and among others on a small one",
    )
