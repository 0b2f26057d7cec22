"""The gate in a model of vLLM's scheduler: bounded, in order, and nobody waits for ever."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from vllm import SamplingParams

from interv.codegen.bundle import Column
from interv.document.spec import Everything, Selector, Token
from interv.request.inline import Inline, spare_bits
from interv.runtime.choice import RESOLVED, Choice, choice_in
from interv.runtime.compat import waiting
from interv.runtime.config import SEATS, InterventionConfig
from interv.runtime.counters import HELD, Counters
from interv.runtime.scheduler.waiting import Gate, admits, free_request
from interv.runtime.worker.engine import Engine
from tests.runtime.small import bundle, step

SLOTS, SPARE = 3, 4
handle = waiting.handle(admits)
FIXED: tuple[Selector, ...] = (Everything(), *(Token(ids=(100 + i,)) for i in range(63 - SPARE)))


@cache
def carried() -> InterventionConfig:
    """Return a bundle that leaves SPARE bits for the selectors of inline programs."""
    made = InterventionConfig(replace(bundle(FIXED), inline=True), SLOTS)
    assert spare_bits(made.bundle) == SPARE
    return made


def inline(ids: tuple[int, ...], scale: float = 1.0) -> Choice:
    """Return the choice of a program with a selector for each id; below 100 it is a new one."""
    columns = tuple((0, Column(-1, 0, alpha=scale, selector=i)) for i in range(len(ids)))
    return Choice.brought(Inline(columns, tuple(Token(ids=(one,)) for one in ids)))


NAMED = tuple(Choice.of((("calm", float(m)),)) for m in range(6))  # the first one is no edit
BROUGHT = (
    inline((0,)),
    inline((1, 2)),
    inline((0, 3, 4)),
    inline((5, 6, 7, 8)),
    inline((100, 101)),
    inline((101, 9), 2.0),
)
choices = st.sampled_from(NAMED) | st.sampled_from(BROUGHT)


@dataclass(eq=False)
class Request:
    """What the gate reads of vLLM's request, and how long this one still runs."""

    request_id: str
    sampling_params: Any
    steps: int
    blocked: bool = False  # for another reason than ours
    preempted: int = 0

    @property
    def choice(self) -> Choice:
        return choice_in(self.sampling_params, Choice())


@dataclass(eq=False)
class Scheduler:
    """vLLM's loop over the waiting queue: skipped requests go back in their order."""

    gate: Gate
    room: int = 8
    waiting: deque[Request] = field(default_factory=deque)
    running: list[Request] = field(default_factory=list)
    current_step: int = 0
    started: list[Request] = field(default_factory=list)

    def schedule(self, budget: int = 100, preempt: int = 0) -> list[Request]:
        self.current_step += 1
        victims = [self.running.pop() for _ in range(min(preempt, len(self.running)))]
        for one in victims:
            one.preempted += 1
            self.waiting.appendleft(one)
        # vLLM takes in nothing in a step that has preempted.
        started = [] if victims else list(self._take_in(budget))
        self.started += started
        return started

    def _take_in(self, budget: int) -> Any:
        skipped: deque[Request] = deque()
        while self.waiting and budget and len(self.running) < self.room:
            request = self.waiting[0]
            if not handle(lambda _, one: not one.blocked, self._seen(), request):
                skipped.appendleft(self.waiting.popleft())
                continue
            self.running.append(self.waiting.popleft())
            budget -= 1
            yield request
        self.waiting.extendleft(skipped)

    def _seen(self) -> Any:
        """Return the scheduler as the wrapper sees it."""
        return SimpleNamespace(
            interv=self.gate,
            vllm_config=SimpleNamespace(additional_config=carried()),
            running=self.running,
            current_step=self.current_step,
        )

    def leave(self, request: Request) -> Any:
        if request in self.running:
            self.running.remove(request)
        else:
            self.waiting.remove(request)
        return free_request(lambda *_: (None, "theirs"), self._seen(), request)

    def run(self) -> None:
        """Run a step and let those finish that are done."""
        self.schedule()
        for one in list(self.running):
            one.steps -= 1
            if one.steps <= 0:
                self.leave(one)


def scheduler(**options: Any) -> Scheduler:
    return Scheduler(Gate(carried(), Counters(None, carried().bundle)), **options)


def request(name: object, choice: Choice, steps: int = 1, report: bool = False) -> Request:
    plain = {**choice.plain(), "report": report}
    return Request(str(name), SamplingParams(extra_args={RESOLVED: plain}), steps)


def configurations(running: list[Request]) -> set[str]:
    return {one.choice.key for one in running} - {""}


def new_selectors(running: list[Request]) -> set[Selector]:
    brought = [one.choice.inline for one in running if one.choice.inline]
    return {s for one in brought for s in one.selectors} - {*FIXED}


class Scheduling(RuleBasedStateMachine):
    """Random arrivals, finishes, cancels and preemptions."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = scheduler()
        self.count = 0

    @rule(choice=choices, report=st.booleans(), blocked=st.booleans())
    def arrive(self, choice: Choice, report: bool, blocked: bool) -> None:
        self.count += 1
        one = request(self.count, choice, report=report)
        one.blocked = blocked
        self.scheduler.waiting.append(one)

    @rule(budget=st.integers(1, 6), preempt=st.sampled_from([0, 0, 0, 1, 2]))
    def step(self, budget: int, preempt: int) -> None:
        before = [*self.scheduler.waiting]
        started = self.scheduler.schedule(budget, preempt)
        if preempt:
            return
        assert [one for one in before if one in started] == started
        stay = [one for one in before if one not in started]
        assert list(self.scheduler.waiting) == stay
        self.no_configuration_passed_another(before, started)

    def no_configuration_passed_another(
        self, before: list[Request], started: list[Request]
    ) -> None:
        """A request with an edit starts only if all before it have, unless vLLM blocks those."""
        mine = [one for one in before if one.choice.key]
        held = [i for i, one in enumerate(mine) if one not in started and not one.blocked]
        late = [i for i, one in enumerate(mine) if one in started]
        assert not held or not late or max(late) < min(held)

    @rule(data=st.data())
    @precondition(lambda self: self.scheduler.running or self.scheduler.waiting)
    def leave(self, data: st.DataObject) -> None:
        """A request finishes, or is cancelled while it runs or waits."""
        everyone = [*self.scheduler.running, *self.scheduler.waiting]
        self.scheduler.leave(data.draw(st.sampled_from(everyone)))

    @rule()
    def unblock(self) -> None:
        for one in self.scheduler.waiting:
            one.blocked = False

    @invariant()
    def no_more_run_than_there_is_room_for(self) -> None:
        running = self.scheduler.running
        assert len(configurations(running)) <= SLOTS
        assert len(new_selectors(running)) <= SPARE

    @invariant()
    def seats_are_held_once_and_given_back(self) -> None:
        gate = self.scheduler.gate
        taken = [one.choice.seat for one in self.scheduler.running if one.choice.seat >= 0]
        assert len(set(taken)) == len(taken)
        assert len(gate._seats) + len(gate._free_seats) == SEATS
        everyone = [*self.scheduler.running, *self.scheduler.waiting]
        assert set(gate._seats) <= {one.request_id for one in everyone}
        for one in self.scheduler.running:
            assert (one.choice.seat >= 0) == bool(one.choice.report and one.choice.key)

    def teardown(self) -> None:
        """Whatever state it is in, everyone runs in the end."""
        self.unblock()
        one = self.scheduler
        bound = 2 * (len(one.waiting) + len(one.running)) + 2
        for _ in range(bound):
            one.run()
        assert not one.waiting
        assert not one.running
        assert len(one.gate._free_seats) == SEATS


Scheduling.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)
TestScheduling = Scheduling.TestCase


arrivals = st.lists(st.tuples(choices, st.integers(1, 4), st.booleans()), min_size=1, max_size=24)


@given(wanted=arrivals)
@settings(deadline=None, max_examples=60)
def test_requests_with_an_edit_start_in_the_order_they_came(
    wanted: list[tuple[Choice, int, bool]],
) -> None:
    one = scheduler()
    for i, (choice, steps, report) in enumerate(wanted):
        one.waiting.append(request(i, choice, steps, report))
    for _ in range(100):
        one.run()
    assert len(one.started) == len(wanted)
    edited = [int(each.request_id) for each in one.started if each.choice.key]
    assert edited == sorted(edited)


@given(wanted=arrivals)
@settings(deadline=None, max_examples=40)
def test_the_worker_always_finds_slots_and_bits(wanted: list[tuple[Choice, int, bool]]) -> None:
    """What the gate lets run, a worker can place: no step raises E523."""
    worker = Engine(carried().bundle, torch.device("cpu"), torch.float32, 64, SLOTS)
    one = scheduler()
    for i, (choice, steps, report) in enumerate(wanted):
        one.waiting.append(request(i, choice, steps, report))
    for _ in range(60):
        one.schedule()
        if one.running:
            asked = [each.choice for each in one.running]
            worker.begin(step([(0, 2, 2)] * len(asked), asked))
            slots = worker.tokens.slot[: 2 * len(asked) : 2].tolist()
            assert [slot >= 0 for slot in slots] == [bool(each.key) for each in asked]
        for each in list(one.running):
            each.steps -= 1
            if each.steps <= 0:
                one.leave(each)


def names(requests: list[Request]) -> list[str]:
    return [one.request_id for one in requests]


def test_requests_without_an_edit_pass_one_that_waits() -> None:
    one = scheduler()
    for i in range(SLOTS + 2):
        one.waiting.append(request(i, NAMED[i + 1]))
    one.waiting += [request("off", NAMED[0]), request("same", NAMED[1]), request("off2", NAMED[0])]
    assert names(one.schedule()) == ["0", "1", "2", "off", "off2"]
    # `same` has a slot already, but it may not pass the two that wait for one.
    assert names(list(one.waiting)) == ["3", "4", "same"]
    assert int(one.gate._counters.head[HELD]) == 3
    one.leave(one.running[1])
    assert names(one.schedule()) == ["3"]
    assert int(one.gate._counters.head[HELD]) == 2
    for each in one.running[1:]:
        one.leave(each)
    assert names(one.schedule()) == ["4", "same"]
    assert int(one.gate._counters.head[HELD]) == 0


def test_equal_configurations_need_one_slot() -> None:
    one = scheduler(room=20)
    for i in range(12):
        one.waiting.append(request(i, NAMED[1 + i % SLOTS]))
    assert len(one.schedule()) == 12


def test_inline_programs_wait_for_bits() -> None:
    one = scheduler()
    for i, choice in enumerate((BROUGHT[1], BROUGHT[2], BROUGHT[0])):
        one.waiting.append(request(i, choice))
    # Selectors 1, 2 and 0, 3, 4 are one more than there are; 0 alone would fit but may not pass.
    assert names(one.schedule()) == ["0"]
    one.leave(one.running[0])
    assert names(one.schedule()) == ["1", "2"]


def test_selectors_that_a_document_has_need_no_bit() -> None:
    one = scheduler()
    for i, choice in enumerate((BROUGHT[3], BROUGHT[4])):
        one.waiting.append(request(i, choice))
    assert names(one.schedule()) == ["0", "1"]


def test_a_preempted_request_keeps_its_seat_and_its_place() -> None:
    one = scheduler()
    for i in range(SLOTS):
        one.waiting.append(request(i, NAMED[i + 1], report=True))
    one.waiting.append(request("next", NAMED[SLOTS + 1], report=True))
    assert len(one.schedule()) == SLOTS
    seat = one.running[-1].choice.seat
    assert one.schedule(preempt=1) == []
    assert names(list(one.waiting)) == ["2", "next"]
    assert names(one.schedule()) == ["2"]
    assert one.running[-1].choice.seat == seat


def test_a_finished_request_tells_of_its_rows() -> None:
    one = scheduler()
    wanted = [request("a", NAMED[1], report=True), request("b", NAMED[1])]
    one.waiting += [*wanted, request("c", NAMED[0], report=True)]
    one.schedule()
    counted = one.gate._counters.seats[one.running[0].choice.seat]
    counted[1, 0] = 7
    assert one.leave(wanted[0]) == ({"interv": {"calm": {"post_block[2]": 7}}}, "theirs")
    assert one.leave(wanted[1]) == (None, "theirs")
    assert one.leave(one.running[0]) == ({"interv": {}}, "theirs")


def test_the_report_joins_what_others_put_there() -> None:
    one = scheduler()
    one.waiting.append(request("a", NAMED[1], report=True))
    one.schedule()
    result = free_request(lambda *_: ({"theirs": 1}, None), one._seen(), one.running[0])
    assert result == ({"theirs": 1, "interv": {}}, None)


def test_a_scheduler_without_interventions_is_left_alone() -> None:
    bare = SimpleNamespace(vllm_config=SimpleNamespace(additional_config={}))
    asked = request("a", NAMED[1], report=True)
    for said in (True, False):
        assert handle(lambda _, one, said=said: said, bare, asked) is said
    assert free_request(lambda *_: (None, None), bare, asked) == (None, None)
    assert not hasattr(bare, "interv")
