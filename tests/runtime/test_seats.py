"""Seats of requests that want a report: one for each that may run, and who waits without one."""

from __future__ import annotations

from dataclasses import replace

from vllm import SamplingParams

from interv.runtime.choice import RESOLVED
from interv.runtime.config import SEATS
from interv.runtime.counters import HELD, Counters
from interv.runtime.frontend.start import MOST_SEAT_BYTES, seats_for
from interv.runtime.scheduler.waiting import Gate
from tests.runtime.test_waiting import (
    NAMED,
    Request,
    Scheduler,
    carried,
    names,
    request,
    scheduler,
)


def test_a_request_that_wants_a_report_waits_for_a_seat() -> None:
    one = scheduler(room=SEATS + 4)
    for i in range(SEATS + 1):
        one.waiting.append(request(i, NAMED[1], report=True))
    one.waiting += [request("silent", NAMED[1]), request("off", NAMED[0], report=True)]
    # Those that want no report pass the one that waits for a seat.
    assert names(one.schedule()) == [*map(str, range(SEATS)), "silent", "off"]
    assert int(one.gate._counters.head[HELD]) == 1
    ticket = one.running[5].choice.ticket
    one.leave(one.running[5])
    assert names(one.schedule()) == [str(SEATS)]
    assert int(one.gate._counters.head[HELD]) == 0
    last = one.running[-1].choice
    # It sits where the other sat, and its rows are told apart by their ticket.
    assert last.seat == SEATS - 1 - 5
    assert last.ticket == SEATS + 1 > ticket


def test_a_request_with_a_seat_to_take_still_waits_for_its_slot() -> None:
    one = scheduler(room=SEATS + 4)
    for i in range(SEATS + 1):
        one.waiting.append(request(i, NAMED[1], report=True))
    one.waiting += [request("b", NAMED[2], 9), request("c", NAMED[3], 9)]
    assert names(one.schedule()) == [*map(str, range(SEATS)), "b", "c"]
    # It has the seat that falls free, but no slot: nothing with an edit passes it then.
    one.waiting.appendleft(request("d", NAMED[4], report=True))
    one.leave(one.running[0])
    assert names(one.schedule()) == []
    assert names(list(one.waiting)) == ["d", str(SEATS)]
    one.leave(one.running[-1])
    assert names(one.schedule()) == ["d"]


def test_there_is_a_seat_for_each_request_that_may_run() -> None:
    assert seats_for(carried().bundle, 16) == SEATS
    assert seats_for(carried().bundle, 1024) == 1024
    # 2 sites x 2 names x 8 bytes each, within the bound.
    assert seats_for(carried().bundle, 1 << 30) == MOST_SEAT_BYTES // 32
    made = replace(carried(), seats=90)
    one = Scheduler(Gate(made, Counters(None, made.bundle, made.seats)), room=90)
    for i in range(90):
        one.waiting.append(request(i, NAMED[1], report=True))
    assert len(one.schedule()) == 90
    assert len({each.choice.seat for each in one.running}) == 90


def test_samples_that_share_parameters_have_seats_of_their_own() -> None:
    one = scheduler()
    shared = SamplingParams(extra_args={RESOLVED: {**NAMED[1].plain(), "report": True}})
    one.waiting += [Request(str(i), shared, 1) for i in range(3)]
    assert len(one.schedule()) == 3
    assert len({each.choice.seat for each in one.running}) == 3
    assert shared.extra_args == {RESOLVED: {**NAMED[1].plain(), "report": True}}
