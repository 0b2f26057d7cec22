"""Hand the rows of requests that ended to their sinks, and publish what became of them.

All of it happens on threads of its own: rows are put together on one, each sink has another. The
engine waits only where a sink that may block it is behind by more than its queue holds.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from interv.codegen.bundle import Bundle, CaptureTable, SinkUse
from interv.runtime import compat
from interv.runtime.captures.records import Records, sample_of, statements
from interv.runtime.captures.rows import RequestTaken
from interv.runtime.captures.staging import Ended, Group
from interv.runtime.choice import Choice
from interv.runtime.counters import RECORDS, ROWS, Counters
from interv.sinks.base import Sink
from interv.sinks.delivery import Delivery, Outcome
from interv.sinks.journal import About, Journal
from interv.sinks.known import make_sink
from interv.sinks.owner import Hold
from interv.sinks.record import Captured
from interv.sinks.rescue import rescue_soon
from interv.sinks.results import Result, Results
from interv.sinks.ring import Ring
from interv.sinks.threads import use_one_core

# How many requests may have ended and wait to be put together.
_WAITING = 64
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
        stages: int = 1,
    ) -> None:
        """Open the sinks of a worker of the data-parallel `rank`.

        Raises IntervError E27x and E55x where one cannot be opened.
        """
        own = f"{rank}-{compat.pipeline_stage()}"
        self._owned = Hold(folder.parent, folder.stem)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._bundle, self._records = bundle, Records(bundle, groups, model)
        self._counters = counters
        self._stage = compat.pipeline_stage()
        self._results = Results(folder, stages)
        self._lock = threading.Lock()
        self._open: dict[str, _Open] = {}  # by key
        self._held: dict[str, tuple[int, str]] = {}  # by key: its sink, and the client's id
        self._ring = Ring(folder / f"held-{own}", RING_MIB)
        self._closed = False
        self._sinks = [
            self._opened(use, folder, f"{number}-{own}") for number, use in enumerate(bundle.sinks)
        ]
        # The captures whose rows must outlive this process once their requests are answered.
        self._lasting = sum(
            1 << bit
            for bit, table in enumerate(bundle.captures)
            if self._sinks[table.sink].lasting and not table.marked
        )
        self._may_be_lost = False
        self._jobs: queue.Queue[_Job | Literal["flush", "end"]] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="interv-captures", daemon=True)
        self._thread.start()

    def _opened(self, use: SinkUse, folder: Path, own: str) -> Delivery:
        memory = {"folder": folder / f"rows-{own}"} if use.decl.kind == "memory" else {}
        sink = make_sink(use.decl, use.root, **memory)
        journal = _journal(sink, use, folder / f"journal-{own}")
        return Delivery(sink, use.decl.name, self._done, _log, journal)

    def hand_over(self, ended: Ended, choice: Choice, taken: RequestTaken) -> None:
        """Take what was captured of a request; waits where too many wait already."""
        self._may_be_lost |= bool(choice.captures & self._lasting)
        self._jobs.put((ended, choice, taken))

    def flush(self) -> None:
        """Have the sinks store what they keep for a larger file."""
        self._jobs.put("flush")

    def land(self) -> None:
        """Wait until all that was handed over would outlive this process, or is with its sink.

        Rows that end with the engine are not waited for.
        """
        if self._may_be_lost:
            self._may_be_lost = False
            self._jobs.join()

    def _run(self) -> None:
        use_one_core()
        while (job := self._jobs.get()) != "end":
            try:
                self._take(job)
            except Exception:  # there is no room even for what became of the rows
                compat.log.exception("interv: captured rows are lost, and nobody is told")
            finally:
                self._jobs.task_done()
        self._jobs.task_done()

    def _take(self, job: _Job | Literal["flush"]) -> None:
        if job == "flush":
            for one in self._sinks:
                one.flush()
            return
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
        found, called = [], statements(self._bundle)
        for bit, table in enumerate(self._bundle.captures):
            if choice.captures >> bit & 1:
                decl = self._bundle.sinks[table.sink].decl
                names = (choice.label.request, sample, called[bit], table.program)
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
            said = dict(detail or {})
            opened.results[key] = replace(before, status=status, detail=said, error=error)
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

    def held(self, name: str) -> list[str]:
        """Return the handles of requests that are called so and of which rows are held.

        A handle stands for itself, whatever other requests are called.
        """
        with self._lock:
            known = [(key.partition(".")[0], request) for key, (_, request) in self._held.items()]
        named = [handle for handle, request in known if request == name]
        return [name] if any(name == handle for handle, _ in known) else sorted(set(named))

    def mark(self, handle: str) -> int:
        """Store the held rows of a request, and return how many records there were."""
        with self._lock:
            keys = [key for key in self._held if key.partition(".")[0] == handle]
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
        """Deliver what there is, and end the sinks; again, it does nothing.

        What is not stored in time stays for the next engine that starts.
        """
        if self._closed:
            return
        self._closed = True
        until = time.monotonic() + compat.stop_s()
        with contextlib.suppress(queue.Full):
            self._jobs.put("end", timeout=compat.stop_s())
        self._thread.join(max(0.0, until - time.monotonic()))
        for one in self._sinks:
            one.end()
        for one in self._sinks:
            one.close(max(0.0, until - time.monotonic()))
        self._ring.close()
        # Who is late still writes there.
        if not any(one.runs for one in self._sinks):
            self._owned.release(rescue_soon)


def _journal(sink: Sink, use: SinkUse, folder: Path) -> Journal | None:
    return Journal(folder, About.of(use.decl, use.root)) if sink.lasting else None


def _log(error: Exception) -> None:
    compat.log.error("interv: %s", error)
