"""The manifest: what it says of files, and of a session that was killed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from interv.captures.scan import scan
from interv.sinks.manifest import read_manifest
from interv.sinks.reading import CaptureFile
from interv.sinks.schema import MANIFEST
from tests.sinks.made import captured, filesystem, part


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / MANIFEST).read_text().splitlines() if line]


def test_a_session_that_ends_cleanly(tmp_path: Path) -> None:
    sink = filesystem(tmp_path, layout="packed")
    sink.put(captured(part(12, 3, start=5), part(20, 3, start=5), tag="t"))
    sink.close()
    opened, file, closed = lines(tmp_path)
    session = opened["session"]
    assert {key: opened[key] for key in ("event", "format", "layout")} == {
        "event": "opened",
        "format": "interv captures 1",
        "layout": "packed",
    }
    assert closed == {"event": "closed", "session": session, "files": 1}
    (record,) = file.pop("records")
    path = tmp_path / file["file"]
    assert file == {
        "event": "file",
        "session": session,
        "file": "t.cmpl-1.0.look.4.post_block.12_20.safetensors",
        "bytes": path.stat().st_size,
        "tokens": {"tokens.0": {"positions": [[5, 8]], "token_ids": [38, 45, 52]}},
    }
    assert (record["request"], record["tag"], record["digest"]) == ("cmpl-1", "t", "d" * 64)
    assert [
        (one["site"], one["layer"], one["dtype"], one["shape"], one["tokens"])
        for one in record["parts"]
    ] == [
        ("post_block", 12, "BF16", [3, 8], "tokens.0"),
        ("post_block", 20, "BF16", [3, 8], "tokens.0"),
    ]
    found = scan(tmp_path)
    assert (found.incomplete, found.errors) == ((), ())


def test_positions_are_runs(tmp_path: Path) -> None:
    one = part(0, 6)
    one.position.copy_(one.position.new_tensor([0, 1, 2, 7, 9, 10]))
    sink = filesystem(tmp_path)
    sink.put(captured(one, tokens=20))
    assert lines(tmp_path)[1]["tokens"]["tokens.0"]["positions"] == [[0, 3], [7, 8], [9, 11]]


def test_the_manifest_and_the_file_say_the_same(tmp_path: Path) -> None:
    sink = filesystem(tmp_path, quantize="fp8")
    sink.put(captured(part(1, 40, 32), part(2, 40, 32), rank=3))
    sink.close()
    for name, listed in read_manifest(tmp_path / MANIFEST).files.items():
        with CaptureFile(tmp_path / name) as file:
            assert (file.records, file.bytes) == (listed.records, listed.bytes)


def test_a_later_session_goes_on(tmp_path: Path) -> None:
    for _ in range(2):
        sink = filesystem(tmp_path)
        sink.put(captured())
        sink.close()
    assert [one["event"] for one in lines(tmp_path)] == ["opened", "file", "closed"] * 2
    assert len(scan(tmp_path).files) == 2
    assert scan(tmp_path).incomplete == ()


def test_a_session_that_has_not_closed(tmp_path: Path) -> None:
    sink = filesystem(tmp_path)
    sink.put(captured())
    session = lines(tmp_path)[0]["session"]
    open_ = f'session "{session}" has not closed: it still runs, or was ended early'
    assert scan(tmp_path).incomplete == (open_,)
    sink.close()
    assert scan(tmp_path).incomplete == ()


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_torn_line_spoils_no_other(cut: int, tmp_path: Path) -> None:
    sink = filesystem(tmp_path)
    sink.put(captured())
    path = tmp_path / MANIFEST
    path.write_bytes(path.read_bytes()[:-cut])
    torn = read_manifest(path)
    assert (len(torn.files), torn.wrong) == ((1, ()) if cut == 1 else (0, (2,)))
    later = filesystem(tmp_path)
    later.put(captured(request="r2"))
    later.close()
    found = read_manifest(path)
    assert len(found.files) == len(torn.files) + 1
    name = "cmpl-1.0.look.4.post_block.12_20.safetensors"
    assert name in {one.path.name for one in scan(tmp_path).files}
    assert (len(found.open), found.wrong) == (1, torn.wrong)


def test_a_line_that_does_not_fit_is_ended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = filesystem(tmp_path)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: real(file, data[:30]))
        with pytest.raises(OSError, match="No space left") as error:
            sink.put(captured(request="r1"))
    assert error.value.errno == errno.ENOSPC
    sink.put(captured(request="r2"))
    sink.close()
    found = scan(tmp_path)
    assert [file.listed is not None for file in found.files] == [True, False]
    assert found.incomplete == (
        "line 2 of manifest.jsonl is torn",
        '"r1.0.look.4.post_block.12_20.safetensors" is complete, but not in the manifest',
    )


def test_lines_of_two_writers_stay_whole(tmp_path: Path) -> None:
    def write(name: str) -> None:
        sink = filesystem(tmp_path)
        for i in range(40):
            sink.put(captured(request=f"{name}{i}"))
        sink.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    found = scan(tmp_path)
    assert (len(found.files), found.incomplete, found.errors) == (120, (), ())


WRITER = """
import sys
from tests.sinks.made import captured, filesystem, part
sink = filesystem(sys.argv[1], layout=sys.argv[2], fsync=True, shard_mib=1)
print("ready", flush=True)
for i in range(100000):
    sink.put(captured(part(12, 200, 256), part(20, 200, 256), request=f"r{i}"))
"""


@pytest.mark.parametrize("layout", ["packed", "per_file", "sharded"])
def test_a_killed_process_leaves_whole_files_and_says_so(layout: str, tmp_path: Path) -> None:
    folder = tmp_path / "acts"
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), layout], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    least = 3 if layout == "sharded" else 20
    while len(list(folder.glob("*.safetensors"))) < least:
        assert child.poll() is None
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    found = scan(folder)
    assert found.errors == ()
    assert len(found.files) >= least
    for file in found.files:
        with CaptureFile(file.path) as one:
            assert sum(1 for _ in one.captured()) >= 1
    # At most the file that had its name and no line yet; the session is open.
    assert sum(file.listed is None for file in found.files) <= 1
    assert sum("has not closed" in one for one in found.incomplete) == 1
    parts = list(folder.glob(".*.part"))
    assert sum("was being written" in one for one in found.incomplete) == len(parts)
