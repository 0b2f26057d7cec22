"""The `sharded` layout: when a shard is written, and what its requests are told."""

from __future__ import annotations

import errno
from concurrent.futures import Future
from pathlib import Path

import pytest
from safetensors import safe_open

from interv.sinks.container import encode, merge
from interv.sinks.filesystem import MOST_RECORDS
from interv.sinks.reading import CaptureFile
from tests.sinks.made import captured, disk_is_full, filesystem, names, part, put, read


def test_a_shard_tells_its_requests_when_it_is_written(tmp_path: Path) -> None:
    sink = filesystem(tmp_path, layout="sharded")
    futures = [sink.put(captured(request=f"r{i}")) for i in range(3)]
    assert all(isinstance(one, Future) and not one.done() for one in futures)
    assert names(tmp_path) == ["manifest.jsonl"]
    sink.flush()
    details = [one.result(0) for one in futures if isinstance(one, Future)]
    (path,) = {detail["path"] for detail in details}
    assert Path(str(path)).is_file()
    assert [record.request for record in read(tmp_path)] == ["r0", "r1", "r2"]
    with safe_open(path, framework="pt") as file:
        assert "2.post_block.12.rows" in file.keys()  # noqa: SIM118 (it is not a mapping)


def test_a_shard_is_written_when_it_is_full(tmp_path: Path) -> None:
    sink = filesystem(tmp_path, layout="sharded", shard_mib=1)
    big = [captured(part(0, 300, 512), request=f"r{i}") for i in range(5)]  # 0.3 MiB each
    futures = [sink.put(record) for record in big]
    assert [one.done() for one in futures if isinstance(one, Future)] == [True] * 3 + [False] * 2
    sink.close()
    assert [len(_records(path)) for path in sorted(tmp_path.glob("shard-*"))] == [3, 2]
    assert sum(path.stat().st_size > 1 << 20 for path in tmp_path.glob("shard-*")) == 0


def _records(path: Path) -> tuple[object, ...]:
    with CaptureFile(path) as file:
        return file.records


def test_a_shard_is_written_when_it_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("interv.sinks.filesystem.time.monotonic", lambda: now[0])
    sink = filesystem(tmp_path, layout="sharded", shard_s=30)
    assert sink.tick() is None
    first = sink.put(captured())
    assert isinstance(first, Future)
    assert sink.tick() == 30
    now[0] += 29
    sink.put(captured(request="later"))
    assert (sink.tick(), first.done()) == (1, False)
    now[0] += 1
    assert sink.tick() is None
    assert first.done()
    assert len(read(tmp_path)) == 2


def test_a_shard_of_many_small_records_stays_readable(tmp_path: Path) -> None:
    sink = filesystem(tmp_path, layout="sharded")
    one = captured(part(0, 1, 1))
    for _ in range(MOST_RECORDS + 1):
        sink.put(one)
    assert len(list(tmp_path.glob("shard-*"))) == 1
    sink.close()
    assert len(read(tmp_path)) == MOST_RECORDS + 1


def test_a_shard_that_cannot_be_written_tells_all_of_its_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = filesystem(tmp_path, layout="sharded")
    futures = [sink.put(captured(request=f"r{i}")) for i in range(2)]
    disk_is_full(monkeypatch)
    sink.flush()
    reasons = [one.exception(0) for one in futures if isinstance(one, Future)]
    assert [getattr(reason, "errno", None) for reason in reasons] == [errno.ENOSPC] * 2
    monkeypatch.undo()
    put(sink, captured(request="r2"))
    assert [record.request for record in read(tmp_path)] == ["r2"]


def test_merged_records_are_told_apart() -> None:
    whole = merge([encode(captured(request="a")), encode(captured(request="b"))])
    assert [record.parts[0].rows for record in whole.records] == [
        "0.post_block.12",
        "1.post_block.12",
    ]
    assert set(whole.tokens) == {"0.tokens.0", "1.tokens.0"}
