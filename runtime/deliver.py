"""Hand the rows of requests that ended to their sinks, and publish what became of them.

All of it happens on threads of its own: rows are put together on one, each sink has another. The
engine waits only where a sink that may block it is behind by more than its queue holds.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from interv.codegen.bundle import Bundle, CaptureTable
from interv.runtime import compat
from interv.runtime.capture import Ended, Group
from interv.runtime.choice import Choice
from interv.runtime.counters import RECORDS, ROWS, Counters
from interv.runtime.records import Records, sample_of
from interv.runtime.taken import RequestTaken
from interv.sinks.delivery import Delivery, Outcome
from interv.sinks.known import make_sink
from interv.sinks.record import Captured
from interv.sinks.results import Result, Results, claim
from interv.sinks.ring import Ring
from interv.sinks.threads import use_one_core

# How many requests may have ended and wait to be put together.
_WAITING = 64
_CLOSE_S = 30.0
# How many records may be held before what the ring has forgotten is looked for.
_MOST_HELD = 4096
# What a ring of unmarked rows may hold.
RING_MIB = 512

_Job: TypeAlias = tuple[Ended, Choice, RequestTaken]


@dataclass(slots=True, eq=False)
class _Open:
    """A sample of a request whose results are not all known."""

    handle: str
    part: str
    results: dict[str, Result]  # by key
    missing: set[str] = field(default_factory=set)


class Deliveries:
    """The sinks of one worker."""

    def __init__(
        self,
        bundle: Bundle,
        groups: tuple[Group, ...],
        folder: Path,
        model: str,
        counters: Counters,
        rank: int = 0,
    ) -> None:
        """Open the sinks of a worker of the data-parallel `rank`.

        Raises IntervError E27x and E55x where one cannot be opened.
        """
        own = f"{rank}-{compat.pipeline_stage()}"
        claim(folder)
        self._bundle, self._records = bundle, Records(bundle, groups, model)
        self._counters = counters
        self._stage = compat.pipeline_stage()
        self._results = Results(folder)
        self._lock = threading.Lock()
        self._open: dict[str, _Open] = {}  # by key
        self._held: dict[str, tuple[int, str]] = {}  # by key: its sink, and the client's id
        self._ring = Ring(folder / f"held-{own}", RING_MIB)
        self._closed = False
        self._sinks = [
            Delivery(
                make_sink(
                    use.decl, use.root, **_more(use.decl.kind, folder / f"rows-{number}-{own}")
                ),
                use.decl.name,
                self._done,
                _log,
            )
            for number, use in enumerate(bundle.sinks)
        ]
        self._jobs: queue.Queue[_Job | Literal["flush", "end"]] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="interv-captures", daemon=True)
        self._thread.start()

    def hand_over(self, ended: Ended, choice: Choice, taken: RequestTaken) -> None:
        """Take what was captured of a request; waits where too many wait already."""
        self._jobs.put((ended, choice, taken))

    def flush(self) -> None:
        """Have the sinks store what they keep for a larger file."""
        self._jobs.put("flush")

    def _run(self) -> None:
        use_one_core()
        while (job := self._jobs.get()) != "end":
            if job == "flush":
                for one in self._sinks:
                    one.flush()
                continue
            try:
                self._put_together(*job)
            except Exception as error:  # the next request's rows are to be had all the same
                self._give_up(job[0], job[1], error)

    def _give_up(self, ended: Ended, choice: Choice, error: Exception) -> None:
        """Say of every capture of a request that its rows are lost."""
        assert choice.label is not None
        compat.log.exception("interv: the captured rows of %s are lost", choice.label.request)
        said = f"the rows were lost on the way: {type(error).__name__}: {error}"
        sample = sample_of(ended.request, choice.label.request)
        found = []
        for bit, table in enumerate(self._bundle.captures):
            if choice.captures >> bit & 1:
                decl = self._bundle.sinks[table.sink].decl
                names = (choice.label.request, sample, table.where, table.program)
                found.append(Result(*names, decl.name, decl.kind, "error", 0, error=said))
                self._counters.head[RECORDS["error"]] += 1
        self._results.write(choice.label.handle, f"{sample}-{self._stage}", found)

    def _put_together(self, ended: Ended, choice: Choice, taken: RequestTaken) -> None:
        assert choice.label is not None
        part = f"{sample_of(ended.request, choice.label.request)}-{self._stage}"
        records = [
            (f"{choice.label.handle}.{part}.{bit}", bit, record, lost)
            for bit, record, lost in self._records.of(ended, choice, taken.together())
        ]
        if not records:
            self._results.write(choice.label.handle, part, [])
        opened = _Open(choice.label.handle, part, {})
        opened.missing = {key for key, *_ in records}
        with self._lock:
            self._open |= dict.fromkeys(opened.missing, opened)
        for key, bit, record, lost in records:
            self._submit(key, bit, record, lost)

    def _submit(self, key: str, bit: int, record: Captured, lost: str) -> None:
        table = self._bundle.captures[bit]
        with self._lock:
            self._open[key].results[key] = self._result(table, record, "ok", error=lost)
        if lost:
            self._settle(key, status="error", error=lost)
        elif table.marked:
            self._hold(key, table.sink, record)
        else:
            self._sinks[table.sink].submit(key, record)

    def _hold(self, key: str, sink: int, record: Captured) -> None:
        try:
            held = self._ring.hold(key, record)
        except OSError as error:
            self._settle(key, status="error", error=f"the ring cannot hold the rows: {error}")
            return
        if not held:
            self._settle(key, status="dropped", error="the rows are larger than the whole ring")
            return
        with self._lock:
            self._prune()
            self._held[key] = (sink, record.request)
        self._settle(key, status="held", last=False)

    def _result(self, table: CaptureTable, record: Captured, status: Any, error: str) -> Result:
        decl = self._bundle.sinks[table.sink].decl
        return Result(
            request=record.request,
            sample=record.sample,
            statement=record.statement,
            program=table.program,
            sink=decl.name,
            kind=decl.kind,
            status=status,
            rows=sum(len(part.position) for part in record.parts),
            error=error,
        )

    def _done(self, outcome: Outcome) -> None:
        """Note what a sink has done with a record; called on the sink's thread."""
        self._settle(outcome.key, outcome.status, outcome.detail, outcome.error)

    def _settle(
        self,
        key: str,
        status: Any,
        detail: Mapping[str, Any] | None = None,
        error: str = "",
        last: bool = True,
    ) -> None:
        """Write the results of a sample once each of its captures has one."""
        with self._lock:
            opened = self._open.pop(key) if last else self._open[key]
            before = opened.results[key]
            opened.results[key] = _changed(before, status, detail or {}, error)
            opened.missing.discard(key)
            self._counters.head[RECORDS[status]] += 1
            if status == "ok":
                self._counters.head[ROWS] += before.rows
            if not opened.missing:
                ordered = sorted(opened.results, key=lambda one: int(one.rpartition(".")[2]))
                results = [opened.results[one] for one in ordered]
                self._results.write(opened.handle, opened.part, results)

    def _prune(self) -> None:
        """Let go of what the ring has forgotten, now and then."""
        if len(self._held) >= _MOST_HELD:
            for key in [key for key in self._held if key not in self._ring]:
                del self._held[key]
                self._open.pop(key, None)

    def mark(self, name: str) -> int:
        """Store the held rows of a request, by the client's id or by its handle.

        Returns how many records there were.
        """
        with self._lock:
            keys = [
                key
                for key, (_, request) in self._held.items()
                if request == name or key.startswith(f"{name}.")
            ]
            held = [(key, self._held.pop(key)[0]) for key in keys]
        found = 0
        for key, sink in held:
            record = self._ring.mark(key)
            if record is None:
                error = "the rows were forgotten before the request was marked"
                self._settle(key, status="dropped", error=error)
                continue
            found += 1
            self._sinks[sink].submit(key, record)
        return found

    def close(self) -> None:
        """Deliver what there is, and end the sinks; again, it does nothing."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put("end")
        self._thread.join(_CLOSE_S)
        for one in self._sinks:
            one.close(_CLOSE_S)
        self._ring.close()


def _more(kind: str, folder: Path) -> dict[str, Any]:
    return {"folder": folder} if kind == "memory" else {}


def _log(error: Exception) -> None:
    compat.log.error("interv: %s", error)


def _changed(before: Result, status: Any, detail: Mapping[str, Any], error: str) -> Result:
    same = (before.request, before.sample, before.statement, before.program)
    return Result(*same, before.sink, before.kind, status, before.rows, dict(detail), error)
