"""Random traffic, and a kernel that refuses to write: each record ends in its one outcome."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from interv.captures import load_captures
from interv.sinks.base import Detail, Sink, SinkOptions
from interv.sinks.record import Captured
from tests.sinks.made import Told, large, names

OVERFLOWS = ("block", "drop", "spill")


class Moody(Sink):
    """Store, fail, wait a little or answer later, as a seed says."""

    def __init__(self, options: SinkOptions, moods: list[str]) -> None:
        super().__init__(options, Path("/"))
        self.moods = moods
        self.stored: list[str] = []
        self.later: list[tuple[str, Future[Detail]]] = []

    def put(self, captured: Captured) -> Detail | Future[Detail]:
        mood = self.moods[int(captured.request) % len(self.moods)]
        if mood == "fail":
            raise ValueError(captured.request)
        if mood == "slow":
            time.sleep(0.002)
        if mood == "later":
            future: Future[Detail] = Future()
            self.later.append((captured.request, future))
            return future
        self.stored.append(captured.request)
        return {"request": captured.request}

    def flush(self) -> None:
        for request, future in self.later:
            self.stored.append(request)
            future.set_result({"request": request})
        self.later = []


@settings(deadline=None, max_examples=25)
@given(
    overflow=st.sampled_from(OVERFLOWS),
    moods=st.lists(st.sampled_from(["ok", "fail", "slow", "later"]), min_size=1, max_size=5),
    threads=st.integers(1, 3),
    each=st.integers(1, 12),
    flushes=st.booleans(),
)
def test_nothing_is_lost_and_nothing_comes_twice(
    overflow: str, moods: list[str], threads: int, each: int, flushes: bool
) -> None:
    options = SinkOptions.model_validate({"overflow": overflow, "queue_mib": 1, "spill_mib": 1})
    sink, told = Moody(options, moods), Told()
    delivery = told.deliver(sink)

    def submit(first: int) -> None:
        for i in range(first, first + each):
            delivery.submit(str(i), large(0.3, request=str(i)))
            if flushes:
                delivery.flush()

    submitters = [threading.Thread(target=submit, args=(i * each,)) for i in range(threads)]
    for one in submitters:
        one.start()
    for one in submitters:
        one.join(60)
    assert delivery.close(60)
    keys = [str(i) for i in range(threads * each)]
    assert Counter(one.key for one in told.outcomes) == Counter(keys)
    status = {one.key: one.status for one in told.outcomes}
    assert sorted(sink.stored) == sorted(key for key in keys if status[key] == "ok")
    assert all(one.detail["request"] == one.key for one in told.outcomes if one.status == "ok")
    failing = {key for key in keys if moods[int(key) % len(moods)] == "fail"}
    assert {key for key in keys if status[key] == "error"} <= failing
    if overflow != "drop":
        assert "dropped" not in status.values()
    assert (delivery.unsettled, delivery.queued_bytes, delivery.spilled_bytes) == (0, 0, 0)


# A file may not grow beyond 1 MiB: what the kernel says in the middle of a write.
LIMITED = """
import json, resource, sys
from pathlib import Path
from tests.sinks.made import Told, captured, filesystem, large
told = Told()
delivery = told.deliver(filesystem(Path(sys.argv[1]), layout=sys.argv[2], shard_mib=2))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
delivery.submit("large", large(3, request="large"))
delivery.flush()
told.wait(1)
delivery.submit("small", large(0.5, request="small"))
assert delivery.close(60)
print(json.dumps([[one.key, one.status, one.error] for one in told.outcomes]))
"""


@pytest.mark.parametrize("layout", ["packed", "per_file", "sharded"])
def test_a_write_that_the_kernel_refuses_half_way(layout: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), layout],
        capture_output=True,
        text=True,
        check=True,
    )
    reason = "sink 'acts' could not store what was captured of request 'large': file too large"
    assert json.loads(done.stdout) == [["large", "error", f"E552: {reason}"], ["small", "ok", ""]]
    assert [name for name in names(tmp_path) if name.endswith(".part")] == []
    captures = load_captures(tmp_path)
    assert (set(captures.request), captures.incomplete) == ({"small"}, ())
