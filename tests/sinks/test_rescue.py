"""What a killed process had on its way to a sink is stored by the next one, once."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from interv.captures import load_captures
from interv.document.spec import SinkDecl
from interv.sinks.filesystem import Filesystem
from interv.sinks.journal import About, Journal
from interv.sinks.manifest import read_manifest
from interv.sinks.owner import Hold, sweep
from interv.sinks.rescue import rescue
from tests.sinks.made import (
    MIB,
    Held,
    Told,
    captured,
    disk_is_full,
    equal,
    filesystem,
    large,
    names,
    part,
    read,
)


def about(root: Path, **options: str | int | bool) -> About:
    decl = SinkDecl(name="acts", kind="filesystem", args=("acts",), options=tuple(options.items()))
    return About.of(decl, root)


def test_a_record_is_in_the_journal_until_its_sink_has_it(tmp_path: Path) -> None:
    sink, told, journal = Held(), Told(), tmp_path / "journal-0"
    delivery = told.deliver(sink, journal=Journal(journal, about(tmp_path)))
    records = [captured(request=f"r{i}") for i in range(3)]
    for i, record in enumerate(records):
        delivery.submit(f"k{i}", record)
    assert names(journal) == [*(f"0000000{i}.safetensors" for i in (1, 2, 3)), "sink.json"]
    sink.open.set()
    told.wait(3)
    assert names(journal) == ["sink.json"]
    assert all(equal(one, other) for one, other in zip(sink.taken, records, strict=True))
    assert delivery.close(60)


@pytest.mark.parametrize("layout", ["packed", "per_file", "sharded"])
def test_what_waited_is_stored_once(tmp_path: Path, layout: str) -> None:
    """Killed before the first, after it is stored, and after it is stored in part."""
    journal, which = Journal(tmp_path / "j" / "journal-0", about(tmp_path, layout=layout)), 3
    records = [captured(request=f"r{i}") for i in range(which)]
    for record in records:
        journal.write(record)
    sink = filesystem(tmp_path / "acts", layout=layout)
    sink.put(records[1])
    if layout == "per_file":
        sink.put(captured(part(12), request="r2", tokens=records[2].tokens))
    sink.flush()
    assert rescue(tmp_path / "j")
    assert names(tmp_path / "j" / "journal-0") == ["sink.json"]
    stored = {}
    for record in read(tmp_path / "acts"):
        for one in record.parts:
            assert (record.request, one.layer) not in stored
            stored[record.request, one.layer] = one
    assert stored.keys() == {(f"r{i}", layer) for i in range(which) for layer in (12, 20)}
    for record in records:
        for one in record.parts:
            assert stored[record.request, one.layer].rows.equal(one.rows)


def test_a_spill_is_a_journal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sink, told = Held(overflow="spill", queue_mib=2, spill_mib=8), Told()
    journal = tmp_path / "interv-a.captures" / "journal-0"
    delivery = told.deliver(sink, journal=Journal(journal, about(tmp_path)))
    for i in range(4):
        delivery.submit(f"k{i}", large(request=f"r{i}"))
    (spilled,) = tmp_path.glob("*.spill")
    assert [len(list(one.glob("*.safetensors"))) for one in (journal, spilled)] == [2, 2]
    assert delivery.queued_bytes <= 2 * MIB
    # As a kill would leave it.
    for folder in (journal.parent, spilled):
        assert rescue(folder)
    assert {record.request for record in read(tmp_path / "acts")} == {f"r{i}" for i in range(4)}
    sink.open.set()
    delivery.close(60)


def test_without_room_for_a_journal_the_sink_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    sink, told = filesystem(tmp_path / "acts", layout="sharded"), Told()
    delivery = told.deliver(sink, journal=Journal(tmp_path / "taken", about(tmp_path)))
    delivery.submit("k0", captured())
    assert [one.status for one in told.outcomes] == ["ok"]
    assert delivery.close(60)


def test_what_is_closed_too_early_waits_for_the_next(tmp_path: Path) -> None:
    sink, told, journal = Held(), Told(), tmp_path / "journal-0"
    delivery = told.deliver(sink, journal=Journal(journal, about(tmp_path)))
    delivery.submit("k0", captured())
    assert not delivery.close(0)
    (outcome,) = told.outcomes
    assert outcome.error == (
        "E553: sink 'acts' was closed before it had stored what was captured of request 'cmpl-1'; "
        "the next engine that starts here does"
    )
    assert rescue(tmp_path)
    assert len(read(tmp_path / "acts")) == 1
    sink.open.set()


def test_a_folder_that_is_not_the_one_meant_keeps_its_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    journal = Journal(tmp_path / "j" / "journal-0", about(root))
    journal.write(captured())
    root.rename(tmp_path / "moved")
    root.mkdir()
    assert not rescue(tmp_path / "j")
    assert caplog.messages == [
        "interv: error[E557]: what a killed engine captured waits in "
        f"'{tmp_path}/j/journal-0' and cannot be stored here\n"
        f"  = '{root}' is not the folder that sink 'acts' was under\n"
        "  = start an engine where it is, or remove what waits"
    ]
    root.rmdir()
    (tmp_path / "moved").rename(root)
    assert rescue(tmp_path / "j")
    assert len(read(root / "acts")) == 1


def test_what_cannot_be_stored_waits_and_what_is_torn_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "journal-0", about(tmp_path))
    path = journal.write(captured())
    (tmp_path / "journal-0" / ".00000002.1234abcd.part").write_bytes(path.read_bytes()[:100])
    with monkeypatch.context() as full, caplog.at_level(logging.WARNING):
        disk_is_full(full)
        assert not rescue(tmp_path)
    said = f"error[E558]: 1 of 1 records that a killed engine had wait in '{tmp_path}/journal-0'"
    assert f"interv: {said}" in caplog.messages
    assert rescue(tmp_path)
    assert len(read(tmp_path / "acts")) == 1


KILLED = """
import os, sys
from pathlib import Path
from interv.sinks.owner import Hold
from tests.sinks.made import Held, Told, captured
from tests.sinks.test_rescue import about
from interv.sinks.journal import Journal
root, place = Path(sys.argv[1]), Path(sys.argv[2])
hold = Hold(place, "interv-a")
journal = Journal(place / "interv-a.captures" / "journal-0", about(root))
delivery = Told().deliver(Held(), journal=journal)
for i in range(20):
    delivery.submit(f"k{i}", captured(request=f"r{i}"))
os.kill(os.getpid(), 9)
"""


def test_a_start_stores_what_a_killed_process_had(tmp_path: Path) -> None:
    root, place = tmp_path / "root", tmp_path / "place"
    root.mkdir()
    place.mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, str(root), str(place)])
    assert done.returncode == -9
    mine = Hold(place, "interv-b")
    sweep(place, rescue)
    assert names(place) == ["interv-b.lock"]
    assert sorted(one.request for one in read(root / "acts")) == sorted(f"r{i}" for i in range(20))
    mine.release()


@pytest.mark.parametrize("layout", ["packed", "per_file", "sharded"])
def test_a_file_without_its_line_is_known_and_listed(tmp_path: Path, layout: str) -> None:
    """Killed between the two: what is there is not stored again, and gets its line."""
    sink = filesystem(tmp_path / "acts", layout=layout)
    records = [captured(request=f"r{i}") for i in range(3)]
    for record in records:
        sink.put(record)
    sink.close()
    manifest = tmp_path / "acts" / "manifest.jsonl"
    before = read_manifest(manifest).files
    manifest.write_text("")
    again = Filesystem(sink.options, Path("/"))
    assert [again.missing(record) for record in records] == [None] * 3
    assert again.missing(captured(request="other")) is not None
    again.close()
    assert read_manifest(manifest).files == before
    assert load_captures(tmp_path / "acts").incomplete == ()
    assert {one.request for one in read(tmp_path / "acts")} == {"r0", "r1", "r2"}
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [one["event"] for one in lines] == ["opened", *["file"] * len(before), "closed"]
