"""The queue before a sink: every record ends in one outcome, whatever the sink does."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from interv.errors import IntervError
from interv.sinks.base import Detail, Sink, SinkOptions
from interv.sinks.delivery import Outcome
from interv.sinks.record import Captured
from tests.sinks.made import MIB, Held, Told, captured, equal, filesystem, large

OVERFLOWS = ("block", "drop", "spill")


def test_records_arrive_in_order() -> None:
    sink, told = Held(), Told()
    sink.open.set()
    delivery = told.deliver(sink)
    for i in range(20):
        delivery.submit(f"k{i}", captured(request=f"r{i}"))
    assert delivery.close(60)
    assert [one.request for one in sink.taken] == [f"r{i}" for i in range(20)]
    assert told.outcomes == [Outcome(f"k{i}", "acts", "ok", {"number": i + 1}) for i in range(20)]
    assert (sink.flushed, sink.closed, told.errors) == (1, 1, [])
    assert delivery.counts == {"ok": 20, "error": 0, "dropped": 0}
    assert (delivery.unsettled, delivery.queued_bytes) == (0, 0)


def test_drop_refuses_at_once_and_counts() -> None:
    sink, told = Held(overflow="drop", queue_mib=2), Told()
    delivery = told.deliver(sink)
    for i in range(5):
        delivery.submit(f"k{i}", large(request=f"r{i}"))
    assert told.outcomes == [Outcome(f"k{i}", "acts", "dropped") for i in (2, 3, 4)]
    assert delivery.queued_bytes <= 2 * MIB
    sink.open.set()
    assert delivery.close(60)
    assert delivery.counts == {"ok": 2, "error": 0, "dropped": 3}
    assert told.errors == []


def test_block_waits_for_room() -> None:
    sink, told = Held(queue_mib=2), Told()
    delivery = told.deliver(sink)
    for i in range(2):
        delivery.submit(f"k{i}", large())
    submitted = threading.Event()

    def submit() -> None:
        delivery.submit("k2", large())
        submitted.set()

    thread = threading.Thread(target=submit)
    thread.start()
    # It must not get through while the sink holds the first record.
    assert not submitted.wait(0.2)
    assert delivery.unsettled == 3
    sink.open.set()
    thread.join(60)
    assert submitted.is_set()
    assert delivery.close(60)
    assert [one.key for one in told.outcomes] == ["k0", "k1", "k2"]


def test_spill_waits_on_disk_and_keeps_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sink, told = Held(overflow="spill", queue_mib=2, spill_mib=4), Told()
    delivery = told.deliver(sink)
    records = [large(request=f"r{i}") for i in range(6)]
    for i, record in enumerate(records):
        delivery.submit(f"k{i}", record)
    assert delivery.queued_bytes <= 2 * MIB
    assert 3 * MIB < delivery.spilled_bytes <= 4 * MIB
    (folder,) = tmp_path.glob("*.spill")
    assert (len(list(folder.iterdir())), folder.stat().st_mode & 0o777) == (4, 0o700)
    sink.open.set()
    assert delivery.close(60)
    assert all(equal(one, other) for one, other in zip(sink.taken, records, strict=True))
    assert [one.key for one in told.outcomes] == [f"k{i}" for i in range(6)]
    assert list(tmp_path.iterdir()) == []


def test_a_full_spill_blocks() -> None:
    sink, told = Held(overflow="spill", queue_mib=1, spill_mib=1), Told()
    delivery = told.deliver(sink)
    for i in range(2):
        delivery.submit(f"k{i}", large())
    thread = threading.Thread(target=delivery.submit, args=("k2", large()))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    sink.open.set()
    thread.join(60)
    assert delivery.close(60)
    assert delivery.counts["ok"] == 3


def test_a_spill_whose_disk_fails_is_an_error_of_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    sink, told = Held(overflow="spill", queue_mib=1), Told()
    delivery = told.deliver(sink)
    delivery.submit("k0", large())
    delivery.submit("k1", large(request="r1"))
    (outcome,) = told.outcomes
    assert (outcome.key, outcome.status) == ("k1", "error")
    assert outcome.error.startswith(
        "E552: sink 'acts' could not store what was captured of request 'r1': "
        f"no such file or directory ('{tmp_path}/none/interv-"
    )
    sink.open.set()
    assert delivery.close(60)
    assert delivery.counts == {"ok": 1, "error": 1, "dropped": 0}


@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_a_record_larger_than_the_queue_is_taken_alone(overflow: str) -> None:
    sink, told = Held(overflow=overflow, queue_mib=1, spill_mib=1), Told()
    sink.open.set()
    delivery = told.deliver(sink)
    for i in range(3):
        delivery.submit(f"k{i}", large(3))
        told.wait(i + 1)
    assert delivery.close(60)
    assert delivery.counts == {"ok": 3, "error": 0, "dropped": 0}


class Raising(Sink):
    """Raise what it is given, by request."""

    def __init__(self, errors: dict[str, BaseException]) -> None:
        super().__init__(SinkOptions(), Path("/"))
        self.errors = errors

    def put(self, captured: Captured) -> Detail:
        if captured.request in self.errors:
            raise self.errors[captured.request]
        return {}


def test_what_a_sink_raises_is_on_the_result_and_it_goes_on() -> None:
    errors: dict[str, BaseException] = {
        "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/acts/a"),
        "read-only": OSError(errno.EROFS, os.strerror(errno.EROFS)),
        "forbidden": PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/acts"),
        "bug": ZeroDivisionError("division by zero"),
        "exit": SystemExit(3),
        "ours": IntervError("E551", "'a' exists already", helps=("choose another",)),
    }
    told = Told()
    delivery = told.deliver(Raising(errors))
    for name in [*errors, "good"]:
        delivery.submit(name, captured(request=name))
    assert delivery.close(60)
    lead = "E552: sink 'acts' could not store what was captured of request"
    assert [(one.key, one.status, one.error) for one in told.outcomes] == [
        ("full", "error", f"{lead} 'full': no space left on device ('/acts/a')"),
        ("read-only", "error", f"{lead} 'read-only': read-only file system"),
        ("forbidden", "error", f"{lead} 'forbidden': permission denied ('/acts')"),
        ("bug", "error", f"{lead} 'bug': ZeroDivisionError: division by zero"),
        ("exit", "error", f"{lead} 'exit': SystemExit: 3"),
        ("ours", "error", f"{lead} 'ours': 'a' exists already"),
        ("good", "ok", ""),
    ]
    assert told.errors[0] == (
        "error[E552]: sink 'acts' could not store what was captured of request 'full': "
        "no space left on device ('/acts/a')\n"
        "  = make room there; requests that end from now on are stored again"
    )
    assert told.errors[5].endswith("\n  = choose another")
    assert len(told.errors) == 6


class Later(Sink):
    """Answer with futures, which the test resolves."""

    def __init__(self) -> None:
        super().__init__(SinkOptions(), Path("/"))
        self.futures: list[Future[Detail]] = []

    def put(self, captured: Captured) -> Future[Detail]:
        self.futures.append(Future())
        return self.futures[-1]

    def flush(self) -> None:
        for i, future in enumerate(self.futures):
            if not future.done():
                future.set_result({"i": i})


def test_a_result_is_known_when_the_future_is() -> None:
    sink, told = Later(), Told()
    delivery = told.deliver(sink)
    for i in range(3):
        delivery.submit(f"k{i}", captured())
    delivery.flush()
    told.wait(3)
    assert [(one.key, dict(one.detail)) for one in told.outcomes] == [
        (f"k{i}", {"i": i}) for i in range(3)
    ]
    assert delivery.close(60)


def test_a_future_that_fails_is_cancelled_or_never_told() -> None:
    sink, told = Later(), Told()
    sink.flush = lambda: None  # type: ignore[method-assign]
    delivery = told.deliver(sink)
    for i in range(3):
        delivery.submit(f"k{i}", captured(request=f"r{i}"))
    while len(sink.futures) < 3:
        time.sleep(0.001)
    sink.futures[0].set_exception(ValueError("no"))
    sink.futures[1].cancel()
    assert delivery.close(60)
    lead = "E552: sink 'acts' could not store what was captured of request"
    assert [one.error for one in told.outcomes] == [
        f"{lead} 'r0': ValueError: no",
        f"{lead} 'r1': CancelledError: ",
        f"{lead} 'r2': RuntimeError: it ended without saying what became of the rows",
    ]


def test_flush_comes_after_what_waits(tmp_path: Path) -> None:
    told = Told()
    delivery = told.deliver(filesystem(tmp_path, layout="sharded"))
    for i in range(5):
        delivery.submit(f"k{i}", captured(request=f"r{i}"))
    delivery.flush()
    assert {one.status for one in told.wait(5)} == {"ok"}
    assert len(list(tmp_path.glob("shard-*"))) == 1
    assert delivery.close(60)


def test_flush_does_not_wait_for_what_comes_later() -> None:
    class Gated(Held):
        def flush(self) -> None:
            self.flushed = len(self.taken)

    sink, told = Gated(), Told()
    delivery = told.deliver(sink)
    delivery.submit("k0", captured())
    delivery.flush()
    for i in range(1, 4):
        delivery.submit(f"k{i}", captured())
    sink.open.set()
    told.wait(4)
    assert delivery.counts["ok"] == 4
    assert sink.flushed == 1
    assert delivery.close(60)


def test_a_shard_is_written_by_time_alone(tmp_path: Path) -> None:
    told = Told()
    delivery = told.deliver(filesystem(tmp_path, layout="sharded", shard_s=0.05))
    delivery.submit("k", captured())
    assert [one.status for one in told.wait(1)] == ["ok"]
    assert delivery.close(60)


def test_a_sink_that_hangs_does_not_hold_up_the_end() -> None:
    sink, told = Held(), Told()
    delivery = told.deliver(sink)
    delivery.submit("k0", captured(request="r0"))
    delivery.submit("k1", captured(request="r1"))
    assert sink.reached.wait(60)
    assert not delivery.close(0.05)
    lead = "E553: sink 'acts' was closed before it had stored what was captured of request"
    assert [(one.key, one.error) for one in told.outcomes] == [
        ("k0", f"{lead} 'r0'"),
        ("k1", f"{lead} 'r1'"),
    ]
    sink.open.set()
    assert delivery.close(60)
    assert len(told.outcomes) == 2  # the late success is not a second outcome


def test_after_close_nothing_is_taken() -> None:
    told = Told()
    delivery = told.deliver(Held())
    assert delivery.close(60)
    delivery.submit("k", captured(request="r"))
    assert [one.error for one in told.outcomes] == [
        "E553: sink 'acts' was closed before it had stored what was captured of request 'r'"
    ]


def test_close_wakes_who_waits_for_room() -> None:
    sink, told = Held(queue_mib=1), Told()
    delivery = told.deliver(sink)
    delivery.submit("k0", large())
    thread = threading.Thread(target=delivery.submit, args=("k1", large()))
    thread.start()
    delivery.close(0.05)
    thread.join(60)
    assert not thread.is_alive()
    assert Counter(one.key for one in told.wait(2)) == Counter(["k0", "k1"])
    sink.open.set()
    delivery.close(60)


def test_what_fails_between_records_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Held):
        def tick(self) -> float | None:
            raise ValueError("tock")

        def close(self) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    sink, told = Broken(), Told()
    sink.open.set()
    delivery = told.deliver(sink)
    delivery.submit("k", captured())
    assert delivery.close(60)
    assert told.errors == [
        "error[E554]: sink 'acts' failed in tick: ValueError: tock",
        "error[E554]: sink 'acts' failed in close: input/output error",
    ]
    assert [one.status for one in told.outcomes] == ["ok"]


def test_what_takes_outcomes_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    from interv.sinks.delivery import Delivery

    def fail(_: Any) -> None:
        raise ValueError("nobody listens")

    delivery = Delivery(Raising({"bad": ValueError("x")}), "acts", fail, fail)
    for name in ("bad", "good"):
        delivery.submit(name, captured(request=name))
    assert delivery.close(60)
    assert delivery.counts == {"ok": 1, "error": 1, "dropped": 0}
    assert [record.message for record in caplog.records] == [
        "the outcome of 'bad' at sink 'acts' was not taken",
        "an error of sink 'acts' was not taken: sink 'acts' could not store what was captured of "
        "request 'bad': ValueError: x",
        "the outcome of 'good' at sink 'acts' was not taken",
    ]
