"""The thread between an engine and a sink: each record that is submitted ends in one outcome."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from interv.errors import IntervError
from interv.sinks.base import Detail, Sink
from interv.sinks.journal import Journal
from interv.sinks.queue import Queue, Waiting
from interv.sinks.record import Captured
from interv.sinks.spill import Spill
from interv.sinks.threads import use_one_core

logger = logging.getLogger(__name__)
Status: TypeAlias = Literal["ok", "error", "dropped"]
# A sink whose `tick` asks to be called at once is not called without a pause.
LEAST_PAUSE_S = 0.01
HELPS: Mapping[int | None, str] = {
    errno.ENOSPC: "make room there; requests that end from now on are stored again",
    errno.EDQUOT: "make room there; requests that end from now on are stored again",
    errno.EROFS: "the file system is mounted read-only",
    errno.EACCES: "the user that the server runs as may not write there",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one record ended: stored ("ok"), refused for want of room, or lost to an error."""

    key: str
    sink: str
    status: Status
    detail: Mapping[str, str | int | float] = field(default_factory=dict)
    error: str = ""


class Delivery:
    """Hand records to a sink on a thread of its own, in the order in which they came.

    Every submitted record ends in exactly one `Outcome`, given to `on_done`: mostly on that
    thread, of a record that is dropped on the one that submits. `on_error` is given the error of
    each record that ends in one, and those that belong to none (the sink cannot be closed). Both
    are called without a lock; what they raise is logged.

    With a `journal` a record is in a file from before `submit` returns until it has its outcome,
    and not in this process's memory. Where the journal has no room `submit` waits for the outcome.
    """

    def __init__(
        self,
        sink: Sink,
        name: str,
        on_done: Callable[[Outcome], None],
        on_error: Callable[[IntervError], None],
        journal: Journal | None = None,
    ) -> None:
        self.name = name
        self._journal = journal
        self._sink, self._on_done, self._on_error = sink, on_done, on_error
        options = sink.options
        self._spill = Spill(options.spill_mib << 20, journal.about if journal else None)
        self._queue = Queue(options.queue_mib << 20, options.overflow, self._spill)
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        self._unsettled: dict[Waiting, None] = {}
        self._counts: dict[Status, int] = {"ok": 0, "error": 0, "dropped": 0}
        self._flush_at: int | None = None  # how many records must be with the sink before
        self._thread = threading.Thread(target=self._run, name=f"interv sink {name}", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> Mapping[Status, int]:
        """Return how many records have ended in each status."""
        with self._lock:
            return dict(self._counts)

    @property
    def unsettled(self) -> int:
        """Return how many records have no outcome yet."""
        with self._lock:
            return len(self._unsettled)

    @property
    def lasting(self) -> bool:
        """Say whether what the sink stores outlives the engine."""
        return self._sink.lasting

    @property
    def runs(self) -> bool:
        """Say whether the sink may still be writing."""
        return self._thread.is_alive()

    @property
    def queued_bytes(self) -> int:
        """Return the bytes of rows that wait in memory."""
        return self._queue.bytes

    @property
    def spilled_bytes(self) -> int:
        """Return the bytes of rows that wait on disk."""
        return self._spill.bytes

    def submit(self, key: str, captured: Captured) -> None:
        """Queue a record; where the queue is full, do what the sink's `overflow` says.

        A record larger than the whole queue is taken when nothing else waits. After `close` a
        record ends in an error.
        """
        one = Waiting(key, captured.request, captured.bytes, captured)
        with self._lock:
            self._unsettled[one] = None
        safe = self._keep(one)
        try:
            taken = self._queue.put(one)
        except Exception as error:  # the spill's disk
            self._fail(one, error)
            return
        if taken == "full":
            self._settle(one, Outcome(key, self.name, "dropped"))
        elif taken == "closed":
            self._late(one)
        elif not (safe or one.spilled):
            self.flush()
            with self._settled:
                self._settled.wait_for(lambda: one not in self._unsettled)

    def _keep(self, one: Waiting) -> bool:
        """Write a record to the journal, and say whether a killed process would not lose it."""
        if self._journal is None:
            return True
        try:
            one.kept = self._journal.write(one.rows())
        except Exception as error:
            logger.warning("sink '%s' is waited for: no journal of it: %s", self.name, error)
            return False
        one.captured = None
        return True

    def flush(self) -> None:
        """Let the sink store what it holds back, once all that waits now is with it."""
        with self._lock:
            self._flush_at = self._queue.taken
        self._queue.wake()

    def end(self) -> None:
        """Take nothing more, without waiting until what is queued is delivered."""
        self._queue.close()

    def close(self, timeout: float | None = None) -> bool:
        """Deliver what is queued, end the sink, and say whether all of that was done in time.

        What is not done after `timeout` seconds ends in an error.
        """
        self.end()
        self._thread.join(timeout)
        with self._lock:
            late = list(self._unsettled)
        for one in late:
            self._late(one)
        return not late and not self._thread.is_alive()

    def _run(self) -> None:
        use_one_core()
        pause: float | None = None
        while not self._queue.ended:
            one = self._queue.get(pause)
            if one is not None:
                self._deliver(one)
                self._queue.done(one)
            if self._flush_is_due():
                self._guard(self._sink.flush)
            due = self._guard(self._sink.tick)
            pause = None if due is None else max(due, LEAST_PAUSE_S)
        self._guard(self._sink.flush)
        self._guard(self._sink.close)
        self._spill.close()
        with self._lock:
            silent = list(self._unsettled)
        for one in silent:
            self._fail(one, RuntimeError("it ended without saying what became of the rows"))

    def _flush_is_due(self) -> bool:
        with self._lock:
            due = self._flush_at is not None and self._queue.given >= self._flush_at
            if due:
                self._flush_at = None
            return due

    def _deliver(self, one: Waiting) -> None:
        try:
            captured = self._spill.read(one.spilled) if one.spilled else one.rows()
            one.captured = None  # once the sink lets go of them, the rows are free
            stored = self._sink.deliver(one.key, captured)
            if isinstance(stored, Future):
                stored.add_done_callback(lambda future: self._stored_later(one, future))
            else:
                self._stored(one, stored)
        except BaseException as error:  # of any class: the code may be another package's
            self._fail(one, error)

    def _stored_later(self, one: Waiting, future: Future[Detail]) -> None:
        try:
            self._stored(one, future.result())
        except (Exception, CancelledError) as error:
            self._fail(one, error)

    def _stored(self, one: Waiting, detail: Detail | None) -> None:
        self._settle(one, Outcome(one.key, self.name, "ok", dict(detail or {})))

    def _late(self, one: Waiting) -> None:
        what = f"what was captured of request '{one.request}'"
        message = f"sink '{self.name}' was closed before it had stored {what}"
        if one.kept or one.spilled:
            message += "; the next engine that starts here does"
        self._settle_error(one, IntervError("E553", message), stays=True)

    def _fail(self, one: Waiting, error: BaseException) -> None:
        what = f"what was captured of request '{one.request}'"
        message = f"sink '{self.name}' could not store {what}: {_reason(error)}"
        number = error.errno if isinstance(error, OSError) else None
        helps = [HELPS[number]] if number in HELPS else []
        if isinstance(error, IntervError):
            helps += error.helps
        self._settle_error(one, IntervError("E552", message, helps=helps))

    def _settle_error(self, one: Waiting, error: IntervError, stays: bool = False) -> None:
        text = f"{error.code}: {error.message}"
        if self._settle(one, Outcome(one.key, self.name, "error", error=text), stays):
            self._report(error)

    def _settle(self, one: Waiting, outcome: Outcome, stays: bool = False) -> bool:
        """Give a record its outcome, unless it has one; its file goes, or `stays` to be rescued."""
        with self._lock:
            if one not in self._unsettled:
                return False
            del self._unsettled[one]
            self._counts[outcome.status] += 1
            self._settled.notify_all()
        if not stays:
            one.leave_journal()
            if one.spilled is not None:
                self._spill.remove(one.spilled)
        try:
            self._on_done(outcome)
        except Exception:
            logger.exception("the outcome of '%s' at sink '%s' was not taken", one.key, self.name)
        return True

    def _guard(self, act: Callable[[], float | None]) -> float | None:
        """Call the sink for no record in particular, and report what it raises."""
        try:
            return act()
        except BaseException as error:
            name = getattr(act, "__name__", "call")
            message = f"sink '{self.name}' failed in {name}: {_reason(error)}"
            self._report(IntervError("E554", message))
            return None

    def _report(self, error: IntervError) -> None:
        try:
            self._on_error(error)
        except Exception:
            logger.exception("an error of sink '%s' was not taken: %s", self.name, error.message)


def _reason(error: BaseException) -> str:
    if isinstance(error, IntervError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        place = f" ('{error.filename}')" if error.filename else ""
        return f"{error.strerror.lower()}{place}"
    return f"{type(error).__name__}: {error}"
