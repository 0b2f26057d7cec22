"""Counts of a device with memory of its own: exact for a report, and waited for by no step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from interv.runtime.choice import Choice
from interv.runtime.counters import Counters
from interv.runtime.worker.device_copies import Queue
from interv.runtime.worker.device_counts import DeviceCounts
from tests.runtime.small import CALM, OFF, SITES, engine, step
from tests.runtime.test_counters import taking

CPU = torch.device("cpu")


class Late(Queue):
    """The queue of a device that does nothing before it is waited for, or let."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.work: list[Callable[[], object]] = []
        self.done = self.waits = 0

    def run(self, until: int | None = None) -> None:
        """Do what was queued, or what was queued first."""
        until = len(self.work) if until is None else until
        for one in self.work[self.done : until]:
            one()
        self.done = max(self.done, until)

    def copy(self, source: torch.Tensor) -> torch.Tensor:
        target = torch.full_like(source, -1)
        self.work.append(lambda: target.copy_(source))
        return target

    def event(self) -> Place:
        return Place(self, len(self.work))


@dataclass
class Place:
    queue: Late
    until: int

    def query(self) -> bool:
        return self.queue.done >= self.until

    def synchronize(self) -> None:
        self.queue.waits += not self.query()
        self.queue.run(self.until)


class Result:
    """A result that is on its way: whoever asks for it waits for the device."""

    def __init__(self, queue: Late) -> None:
        self._place = queue.event()

    def get_output(self) -> str:
        self._place.queue.run(self._place.until)
        return "tokens"


def test_a_report_is_there_with_the_result_and_holds_no_later_step() -> None:
    one, queue = Counters(None, taking()), Late()
    counts = DeviceCounts(one, CPU, queue=queue)
    results = []
    for rows in (5, 2):
        queue.work.append(lambda rows=rows: counts.site(1).seats[7, 0].add_(rows))
        counts.publish({7})
        results.append(counts.settle(Result(queue)))
    assert queue.done == 0
    assert results[0].get_output() == "tokens"
    assert one.rows(7).tolist() == [[0, 0], [5, 0]]
    assert results[1].get_output() == "tokens"
    assert one.rows(7).tolist() == [[0, 0], [7, 0]]
    # No step has waited for its counts, in order or not.
    assert queue.waits == 0


def test_counts_that_nobody_asked_for_land_when_they_are_there() -> None:
    one, queue = Counters(None, taking()), Late()
    counts = DeviceCounts(one, CPU, queue=queue)
    for rows in (3, 4):
        queue.work.append(lambda rows=rows: counts.site(0).total[1].add_(rows))
        counts.publish()
        assert counts.settle(None) is None
        assert counts.settle("a result that is there") == "a result that is there"
    assert (queue.done, queue.waits) == (0, 0)
    assert not one.rows().any()
    queue.run(3)  # the first step's rows, and both of its copies
    counts.settle("later")
    assert one.rows().tolist() == [[0, 3], [0, 0]]
    queue.run()
    counts.settle("later")
    assert one.rows().tolist() == [[0, 7], [0, 0]]
    assert queue.waits == 0


def test_what_another_stage_is_handed_is_not_read_before_a_report_is_there() -> None:
    one, queue = Counters(None, taking()), Late()
    counts = DeviceCounts(one, CPU, queue=queue)
    queue.work.append(lambda: counts.site(0).seats[2, 0].add_(6))
    counts.publish({2})
    counts.settle({"hidden_states": None})
    assert one.rows(2).tolist() == [[6, 0], [0, 0]]
    assert queue.waits == 1


@pytest.mark.parametrize("device", ["host", "own"])
def test_a_stage_touches_only_the_counts_of_its_own_sites(device: str) -> None:
    one = Counters(None, taking())
    queues = [Late() if device == "own" else None for _ in SITES]
    first, second = (DeviceCounts(one, CPU, [i], queue) for i, queue in enumerate(queues))
    first.clear()
    first.take(4)
    first.site(0).seats[4, 0] += 7
    first.site(0).total[0] += 7
    first.publish({4})
    first.settle("the stream")
    # The second stage meets the request after the first one has run it.
    second.take(4)
    second.site(1).seats[4, 0] += 7
    second.site(1).total[0] += 7
    second.publish({4})
    second.settle("the tokens")
    assert one.rows(4).tolist() == [[7, 0], [7, 0]]
    assert one.rows().tolist() == [[7, 0], [7, 0]]
    second.clear()
    assert one.rows().tolist() == [[7, 0], [0, 0]]


def test_an_engine_publishes_the_steps_that_it_edits_and_asks_for_reports_only() -> None:
    made, queue = engine(), Late()
    made.counts = DeviceCounts(made.counters, CPU, queue=queue)
    asks = Choice(CALM.key, CALM.terms, report=True, seat=5, ticket=1)
    said = []
    for choice in (asks, OFF, CALM, asks, OFF):
        made.begin(step([(0, 4, 4)], [choice]))
        made.publish()
        made.clear()
        assert made.counts._copies is not None
        said.append([one.asked for one in made.counts._copies._pending])
    assert said == [[True], [True], [True, False], [True, False, True], [True, False, True]]
