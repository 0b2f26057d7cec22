"""Selectors at run time against their definition, token by token, as a runner would feed them.

Requests of random lengths live in one batch: they join and leave, their prompts are cut at random
places, some start behind a cached prefix, some are thrown out and computed again, some carry
drafted tokens of which only a part is kept. Whatever happens, a token that is fed at a position
has exactly the bits that `interv.document.selectors.holds` gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import getitem

import numpy as np
import torch
from hypothesis import given, settings, strategies as st

from interv.document.selectors import holds
from interv.document.spec import Selector
from interv.runtime.choice import Choice
from interv.runtime.worker.engine import Engine, Step
from interv.runtime.worker.seen_tokens import SeenTokens
from tests.runtime.small import bundle, engine
from tests.strategies import selectors_along

SLOTS, MAX_TOKENS = 4, 96
MULTIPLIERS = (0.0, 0.5, 1.0, -2.0, 4.0)


@dataclass
class Request:
    """One request and how far it is: `given` of its tokens are its prompt."""

    ids: list[int]
    given: int
    cached: int
    multiplier: float | None  # None says nothing and gets the default
    at: int = field(init=False)
    anew: bool = True  # it starts, or resumes, with its next token

    def __post_init__(self) -> None:
        self.at = self.cached

    @property
    def name(self) -> str:
        return str(id(self))

    @property
    def choice(self) -> Choice:
        return Choice.of((("calm", 1.0 if self.multiplier is None else self.multiplier),))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    given = draw(st.integers(1, 24))
    generated = draw(st.integers(0, 12))
    ids = draw(st.lists(st.integers(0, 4), min_size=given + generated, max_size=given + generated))
    multiplier = draw(st.none() | st.sampled_from(MULTIPLIERS))
    return Request(ids, given, draw(st.integers(0, given - 1)), multiplier)


class Runner:
    """Feeds requests to an engine step by step and remembers what each token was given."""

    def __init__(self, one: Engine, wanted: Sequence[Selector]) -> None:
        self._engine, self._wanted = one, wanted
        self.fed = 0

    def step(self, batch: Sequence[tuple[Request, int]]) -> None:
        """Feed so many tokens of each request, and compare every row of the step."""
        ids = [token for r, n in batch for token in r.ids[r.at : r.at + n]]
        places = [place for r, n in batch for place in range(r.at, r.at + n)]
        padding = MAX_TOKENS - len(ids)
        anew = {i: partial(getitem, r.ids, slice(r.at)) for i, (r, _) in enumerate(batch) if r.anew}
        self._engine.begin(
            Step(
                position=torch.tensor(places + [0] * padding),
                token_id=torch.tensor(ids + [1] * padding, dtype=torch.int32),
                starts=np.cumsum([0, *(n for _, n in batch)]).astype(np.int32),
                prompt_length=np.array([r.given for r, _ in batch], dtype=np.int32),
                choices=[r.choice for r, _ in batch],
                ids=[r.name for r, _ in batch],
                anew=anew,
            )
        )
        for r, _ in batch:
            r.anew = False
        self._compare(batch)
        self.fed += len(ids)

    def _compare(self, batch: Sequence[tuple[Request, int]]) -> None:
        slots = self._engine.tokens.slot.tolist()
        masks = [bits % 2**64 for bits in self._engine.tokens.mask.tolist()]
        row, slot_of = 0, {}
        for request, count in batch:
            for place in range(request.at, request.at + count):
                if not request.choice.key:
                    assert slots[row] == -1
                else:
                    assert slots[row] == slot_of.setdefault(request.choice.key, slots[row])
                    assert masks[row] == self._bits(request, place), (request, place)
                row += 1
        assert slots[row:] == [-1] * (len(slots) - row)
        assert -1 not in slot_of.values()
        assert len({*slot_of.values()}) == len(slot_of)

    def _bits(self, request: Request, place: int) -> int:
        token = request.ids[place]
        earlier = request.ids[:place]
        each = (holds(one, place, request.given, token, earlier) for one in self._wanted)
        return sum(1 << i for i, on in enumerate(each) if on)


@given(
    wanted=st.lists(selectors_along, min_size=1, max_size=6),
    ring=st.sampled_from([4, 8, 128]),
    waiting=st.lists(requests(), min_size=1, max_size=8),
    data=st.data(),
)
@settings(deadline=None, max_examples=150)
def test_every_token_of_every_step_has_its_bits(
    wanted: list[Selector], ring: int, waiting: list[Request], data: st.DataObject
) -> None:
    made = engine(bundle(wanted), max_tokens=MAX_TOKENS, slots=SLOTS)
    made.seen = SeenTokens(torch.device("cpu"), ring)
    runner = Runner(made, wanted)
    expected = sum(len(request.ids) - request.cached for request in waiting)
    running: list[Request] = []
    again = 0
    while waiting or running:
        joining = data.draw(st.integers(0 if running else 1, 3), "joining")
        while joining and waiting and len(_keys([*running, waiting[0]])) <= SLOTS:
            running.append(waiting.pop(0))
            joining -= 1
        order = data.draw(st.permutations(running), "order")
        batch = [(r, data.draw(_counts(r, MAX_TOKENS // len(order)), "tokens")) for r in order]
        runner.step(batch)
        for request, count in batch:
            request.at += count
            if data.draw(st.integers(0, 9), "thrown out") == 0 and again < 6:
                again += 1
                cached = data.draw(st.integers(0, request.at - 1), "still cached")
                expected += request.at - cached
                request.at, request.anew = cached, True
        made.seen.forget(r.name for r in running if r.at == len(r.ids))
        running = [request for request in running if request.at < len(request.ids)]
    assert runner.fed == expected


def _counts(request: Request, room: int) -> st.SearchStrategy[int]:
    left = len(request.ids) - request.at
    return st.integers(1, min(left, room))


def _keys(running: Sequence[Request]) -> set[str]:
    return {request.choice.key for request in running} - {""}


@given(wanted=st.lists(selectors_along, min_size=1, max_size=4), one=requests(), data=st.data())
@settings(deadline=None, max_examples=100)
def test_rejected_drafts_leave_nothing_behind(
    wanted: list[Selector], one: Request, data: st.DataObject
) -> None:
    """Draft tokens that were wrong are fed again with the ids that were right."""
    one.multiplier = None
    right, runner = list(one.ids), Runner(engine(bundle(wanted), max_tokens=MAX_TOKENS), wanted)
    drafts = data.draw(st.lists(st.integers(0, 4), min_size=len(right), max_size=len(right)))
    while one.at < len(right):
        count = data.draw(st.integers(1, len(right) - one.at), "tokens")
        end = one.at + count
        # The prompt and the next token are known; what a step feeds beyond them may be wrong.
        known = min(max(one.given, one.at + 1), end)
        wrong_from = data.draw(st.integers(known, end), "wrong from")
        one.ids = right[:wrong_from] + drafts[wrong_from:]
        runner.step([(one, count)])
        one.at = wrong_from
    one.ids, one.at, one.anew = right, 0, True
    runner.step([(one, len(right))])
