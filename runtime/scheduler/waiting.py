"""The scheduler's side: a request whose configuration finds no slot waits, in order.

At most `slots` different configurations run at once. A request that needs another one is held in
the waiting queue, and no request with a configuration passes it there, so that it is next when a
slot falls free; requests without an edit need no slot and may pass. One that finds no seat to
count its rows in, of which there is one for each request that may run, holds no other. Nothing is
counted up or down: what is in use follows from the requests that run, so a cancelled one cannot
keep a slot.
"""

from __future__ import annotations

import itertools
from collections import Counter
from copy import copy
from typing import Any

from interv.request.inline import spare_bits
from interv.runtime import compat
from interv.runtime.captures.staging import Ended
from interv.runtime.choice import RESOLVED, Choice, choice_of
from interv.runtime.config import InterventionConfig
from interv.runtime.counters import HELD, Counters, counters_of, report
from interv.runtime.scheduler.failed import SAID, WHY


class Gate:
    """What one scheduler lets run."""

    def __init__(self, carried: InterventionConfig, counters: Counters) -> None:
        self._bundle, self._slots = carried.bundle, carried.slots
        self._default = Choice.default_of(carried.bundle)
        self._counters = counters
        self._step = -1
        self._running: set[str] = set()
        self._selectors: set[str] = set()  # of inline programs that run, beyond the documents'
        self._fixed = {one.model_dump_json() for one in carried.bundle.selectors}
        self._bits = spare_bits(carried.bundle)
        self._seen = 0  # how many of the scheduler's running requests are in `_running`
        self._held = 0  # requests that wait for a slot or for bits
        self._unseated = 0  # requests that wait for nothing but a seat
        self._free_seats = list(range(len(counters.seats)))
        self._seats: dict[str, int] = {}  # by request id
        self._tickets = itertools.count(1)
        self._ended: list[Ended] = []  # captured requests that the workers do not know of yet
        self.stopped: frozenset[str] = frozenset()  # of the abort under way, by a stop string
        self.late: list[tuple[Any, dict[str, Any]]] = []  # what those requests tell

    def admits(self, scheduler: Any, request: Any) -> bool:
        """Say whether a waiting request may run in this step."""
        self._look(scheduler)
        choice = choice_of(request, self._default)
        free = choice.key in self._running or len(self._running) < self._slots
        free = free and len(self._selectors | self._own(choice)) <= self._bits
        fits = not choice.key or (not self._held and free)
        if fits and self._has_seat(request, choice):
            return True
        self._held += not fits
        self._unseated += fits
        self._counters.head[HELD] = self._held + self._unseated
        return False

    def _look(self, scheduler: Any) -> None:
        """Bring the set of running configurations up to date; within a step it only grows."""
        if scheduler.current_step != self._step:
            self._step = scheduler.current_step
            self._running, self._selectors = set(), set()
            self._seen, self._held, self._unseated = 0, 0, 0
            self._counters.head[HELD] = 0
        for one in scheduler.running[self._seen :]:
            choice = choice_of(one, self._default)
            if choice.key:
                self._running.add(choice.key)
                self._selectors |= self._own(choice)
        self._seen = len(scheduler.running)

    def _own(self, choice: Choice) -> set[str]:
        """Return the selectors of an inline program that the documents do not have."""
        if choice.inline is None:
            return set()
        return {one.model_dump_json() for one in choice.inline.selectors} - self._fixed

    def _has_seat(self, request: Any, choice: Choice) -> bool:
        """Give a request that asked for a report the place where its rows are counted."""
        if not (choice.report and choice.key) or request.request_id in self._seats:
            return True
        if not self._free_seats:
            return False
        seat = self._seats[request.request_id] = self._free_seats.pop()
        # The samples of one request share their parameters where no process lies between.
        params = request.sampling_params = copy(request.sampling_params)
        plain = {**params.extra_args[RESOLVED], "seat": (seat, next(self._tickets))}
        params.extra_args = {**params.extra_args, RESOLVED: plain}
        return True

    def leave(self, request: Any) -> dict[str, dict[str, int]] | None:
        """Take a finished request's seat; return its edited rows by program and site.

        None where the request asked for no report.
        """
        if not choice_of(request, self._default).report:
            return None
        seat = self._seats.pop(request.request_id, None)
        if seat is None:
            return {}
        self._free_seats.append(seat)
        return report(self._counters.rows(seat), self._bundle)

    def ends(self, request: Any) -> dict[str, Any] | None:
        """Note that a request has ended; return where its captured rows will be.

        None where nothing is captured of it.
        """
        choice = choice_of(request, self._default)
        if choice.label is None:
            return None
        finished = compat.has_finished(request) or request.request_id in self.stopped
        tokens, prompt = request.num_tokens, request.num_prompt_tokens
        error = getattr(request, WHY, "")
        self._ended.append(Ended(request.request_id, tokens, prompt, finished, error))
        return {"handle": choice.label.handle}

    def take_ended(self) -> list[Ended]:
        """Return the captured requests that have ended since the last call."""
        ended, self._ended = self._ended, []
        return ended


def _gate(scheduler: Any) -> Gate | None:
    """Return the scheduler's gate, made on first use; None where nothing is edited."""
    gate: Gate | None = getattr(scheduler, "interv", None)
    carried = scheduler.vllm_config.additional_config
    if gate is None and isinstance(carried, InterventionConfig):
        gate = scheduler.interv = Gate(carried, counters_of(carried, scheduler.vllm_config))
    return gate


def admits(scheduler: Any, request: Any) -> bool:
    """Say whether a waiting request may run in this step; a scheduler without edits holds none."""
    gate = _gate(scheduler)
    return gate is None or gate.admits(scheduler, request)


def free_request(original: Any, self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    """Put a finished request's report on its output; wraps `Scheduler._free_request`."""
    result = original(self, request, *args, **kwargs)
    gate = _gate(self)
    if gate is None:
        return result
    said = {"interv": gate.leave(request), "interv_captures": gate.ends(request)}
    said = {name: one for name, one in said.items() if one is not None}
    setattr(request, SAID, said)
    if said and request.request_id in gate.stopped:
        gate.late.append((request, said))
    return ({**(result[0] or {}), **said}, *result[1:]) if said else result


def abort_requests(original: Any, self: Any, request_ids: Any, *args: Any, **kwargs: Any) -> Any:
    """Know an end by a stop string, whose request is named twice; wraps the core's method."""
    gate = _gate(self.scheduler)
    if gate is None:
        return original(self, request_ids, *args, **kwargs)
    counts = Counter(request_ids)
    gate.stopped = frozenset(name for name, count in counts.items() if count > 1)
    try:
        return original(self, request_ids, *args, **kwargs)
    finally:
        gate.stopped = frozenset()


def update_from_output(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Send what requests tell that a stop string ended; wraps the scheduler's method."""
    outputs = original(self, *args, **kwargs)
    gate = getattr(self, "interv", None)
    if gate is not None and gate.late:
        late, gate.late = gate.late, []
        for request, said in late:
            compat.add_output(outputs, request, said)
    return outputs
