"""What the worker keeps of requests' tokens: rows that come and go, programs that share bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given, settings, strategies as st

from interv.document.markers import following
from interv.document.selectors import holds
from interv.document.spec import After, Between, Selector, Token
from interv.runtime.choice import Choice
from interv.runtime.worker.engine import Engine, Step
from tests.runtime.small import CALM, SITES, bundle, engine
from tests.runtime.test_selector_bits import FIXED, inline, taking
from tests.strategies import selectors_along

SLOTS, SPARE = 3, 9
A, B = Token(ids=(1, (2, 3))), Token(ids=(4,))


@dataclass
class Request:
    name: str
    asked: list[Selector]
    ids: list[int]
    choice: Choice
    at: int = 0


@st.composite
def requests(draw: st.DrawFn, number: int) -> Request:
    asked = draw(st.lists(selectors_along, min_size=1, max_size=3))
    ids = draw(st.lists(st.integers(0, 4), min_size=1, max_size=9))
    return Request(str(number), asked, ids, inline(*asked))


def fed(batch: list[tuple[Request, int]]) -> Step:
    rows = [(r, i) for r, count in batch for i in range(r.at, r.at + count)]
    return Step(
        position=torch.tensor([i for _, i in rows]),
        token_id=torch.tensor([r.ids[i] for r, i in rows], dtype=torch.int32),
        starts=np.cumsum([0, *(count for _, count in batch)]).astype(np.int32),
        prompt_length=np.array([2] * len(batch), dtype=np.int32),
        choices=[r.choice for r, _ in batch],
        ids=[r.name for r, _ in batch],
        anew={n: list for n, (r, _) in enumerate(batch) if r.at == 0},
    )


def found(one: Engine, row: int, count: int) -> list[bool]:
    """Return which of a token's columns at the first site find their bit in its mask."""
    bits = one.sites[str(SITES[0])].field("bit")[int(one.tokens.slot[row]), :count]
    return [bool(int(one.tokens.mask[row]) & bit) for bit in bits.tolist()]


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_programs_that_requests_bring_share_bits(data: st.DataObject) -> None:
    fixed = (*FIXED, *(Token(ids=(100 + i,)) for i in range(64 - SPARE - len(FIXED))))
    one = engine(taking(fixed), slots=SLOTS)
    waiting = [data.draw(requests(n), "request") for n in range(data.draw(st.integers(1, 7)))]
    running: list[Request] = []
    while waiting or running:
        while waiting and len(running) < SLOTS:
            running.append(waiting.pop(0))
        # Some wait for a step, and others get their bits meanwhile.
        chosen = data.draw(st.lists(st.sampled_from(running), min_size=1, unique_by=id), "step")
        batch = [(r, data.draw(st.integers(1, len(r.ids) - r.at), "tokens")) for r in chosen]
        one.begin(fed(batch))
        row = 0
        for r, count in batch:
            for i in range(r.at, r.at + count):
                wanted = [holds(each, i, 2, r.ids[i], r.ids[:i]) for each in r.asked]
                assert found(one, row, len(wanted)) == wanted, (r, i)
                row += 1
            r.at += count
        one.seen.forget(r.name for r in running if r.at == len(r.ids))
        running = [r for r in running if r.at < len(r.ids)]


def test_rows_are_used_again() -> None:
    one = engine(bundle([After(mark=A), Between(start=A, end=B)]))
    for first in range(0, 60, 3):
        names = [str(first + n) for n in range(3)]
        one.begin(fed([(Request(name, [], [2, 3, 0], CALM), 3) for name in names]))
        assert one.tokens.mask[:9].tolist() == [0, 0, 3] * 3
        one.seen.forget(names)
    # Nobody's, and those of three at once.
    assert len(one.seen.ids) == 4
    assert set(one.seen.open) == {(((1,), (2, 3)), ()), (((1,), (2, 3)), ((4,),))}


def test_what_nobody_follows_any_more_is_dropped() -> None:
    one = engine(taking((Token(ids=(9,)),)))
    for n in range(200):
        mark = After(mark=Token(ids=(n,)))
        one.begin(fed([(Request(str(n), [mark], [n, 5, 6], inline(mark)), 3)]))
        assert found(one, 0, 1) + found(one, 1, 1) == [False, True]
        one.seen.forget([str(n)])
    assert len(one.seen.open) < 70


def test_a_step_without_markers_keeps_nothing() -> None:
    one = engine(bundle([Token(ids=(1,)), After(mark=A)], default=None))
    before = one.seen.ids.clone()
    one.begin(fed([(Request("a", [], [1, 2, 3], Choice()), 3)]))
    assert torch.equal(one.seen.ids, before)
    assert following(Token(ids=(1,))) == ()
