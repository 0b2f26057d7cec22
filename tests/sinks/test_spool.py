"""Rows in shared memory: by handle for a while, and held until they are marked."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from interv.errors import IntervError
from interv.sinks import spool as spooling
from interv.sinks.memory import Memory
from interv.sinks.ring import Ring
from interv.sinks.spool import Spool, shared_folder
from tests.sinks.made import MIB, captured, equal, large, part


def old(spool: Spool, name: str, age_s: float) -> None:
    """Make a handle as old as that."""
    place = spool.folder / name
    then = place.stat().st_mtime - age_s
    os.utime(place, (then, then))


def test_records_come_back_by_handle(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    records = [captured(part(i), request="r", statement=f"a:{i}") for i in range(12)]
    for record in records:
        spool.write("h", record)
    spool.write("other", captured())
    assert all(equal(*pair) for pair in zip(spool.read("h"), records, strict=True))
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert [(one.name, one.files) for one in spool.list()] == [("h", 12), ("other", 1)]


def test_another_process_reads_the_same_rows(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    record = captured(request="r")
    spool.write("a/../b", record)
    code = (
        "import sys; from pathlib import Path\n"
        "from interv.sinks.spool import Spool\n"
        "(one,) = Spool(Path(sys.argv[1])).read('a/../b')\n"
        "print(one.request, one.parts[0].rows.double().sum().item())\n"
        "print(Spool(Path(sys.argv[1])).forget('a/../b'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    total = record.parts[0].rows.double().sum().item()
    assert done.stdout == f"r {total}\nTrue\n"
    with pytest.raises(IntervError, match="nothing captured is kept"):
        spool.read("a/../b")


def test_rows_outlive_their_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write("h", captured())
    (record,) = spool.read("h")
    assert spool.forget("h")
    assert equal(record, captured())


@pytest.mark.parametrize("handle", ["../x", "/etc/passwd", "..", "", "a\0b", "x" * 900])
def test_a_handle_never_leaves_the_folder(handle: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.write(handle, captured())
    assert len(spool.read(handle)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]
    assert spool.forget(handle)
    assert not spool.forget(handle)
    assert list((tmp_path / "spool").iterdir()) == []


def test_unknown_handles(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ttl_s=60)
    with pytest.raises(IntervError) as error:
        spool.read("cmpl-42")
    assert str(error.value) == (
        "error[E555]: nothing captured is kept under 'cmpl-42'\n"
        "  = rows are kept for 60 s, the oldest go first when room is short"
    )


def test_handles_expire(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ttl_s=60)
    for name in ("a", "b"):
        spool.write(name, captured())
    old(spool, "a", 59)
    assert len(spool.read("a")) == 1
    old(spool, "a", 2)
    with pytest.raises(IntervError, match="nothing captured is kept under 'a'"):
        spool.read("a")
    spool.expire()
    assert [one.name for one in spool.list()] == ["b"]
    assert (spool.expired, spool.evicted) == (1, 0)


def test_the_oldest_make_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path, most_bytes=3 * MIB)
    for i in range(3):
        spool.write(f"h{i}", large(0.95))
        old(spool, f"h{i}", 50 - 10 * i)
    spool.write("h3", large(0.95))
    assert [one.name for one in spool.list()] == ["h1", "h2", "h3"]
    spool.write("h1", large(0.95))  # what a handle has is not given up for itself
    assert [one.name for one in spool.list()] == ["h3", "h1"]
    assert (spool.expired, spool.evicted) == (0, 2)
    assert sum(one.bytes for one in spool.list()) <= 3 * MIB


def test_more_than_the_whole_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path, most_bytes=MIB)
    spool.write("a", captured())
    with pytest.raises(IntervError, match="the spool holds less") as error:
        spool.write("b", large(2))
    assert error.value.code == "E556"
    assert error.value.notes == (f"it holds {MIB}",)
    assert [one.name for one in spool.list()] == ["a"]


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)

    def write(name: str) -> None:
        for i in range(20):
            spool.write(f"h{i % 3}", captured(request=f"{name}{i}"))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    found = Counter(record.request for i in range(3) for record in spool.read(f"h{i}"))
    assert found == Counter(f"{name}{i}" for name in "abc" for i in range(20))


def test_the_memory_sink_uses_the_engines_key(tmp_path: Path) -> None:
    sink = Memory(Memory.Options(), Path("/"), tmp_path / "rows")
    detail = sink.deliver("key-7", captured())
    assert isinstance(detail, dict)
    path = Path(str(detail["path"]))
    assert detail == {"handle": "key-7", "path": str(path), "bytes": path.stat().st_size}
    assert path.parents[1] == tmp_path / "rows"
    assert equal(sink.spool.read("key-7")[0], captured())
    assert sink.put(captured(request="r"))["handle"] == "r"
    sink.close()
    assert not (tmp_path / "rows").exists()


def test_the_memory_sink_expires_by_itself(tmp_path: Path) -> None:
    sink = Memory(Memory.Options.model_validate({"ttl_s": 60}), Path("/"), tmp_path)
    assert sink.tick() is None
    sink.put(captured(request="r"))
    due = sink.tick()
    assert due is not None
    assert 50 < due <= 60
    old(sink.spool, "r", 61)
    assert sink.tick() is None
    assert sink.spool.expired == 1


def test_shared_memory_or_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "SHARED", tmp_path)
    folder = shared_folder()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(spooling, "SHARED", tmp_path / "none")
    other = shared_folder("interv-test-")
    assert other.is_dir()
    other.rmdir()


# The ring


def test_marked_records_are_handed_out_once(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "held", 4)
    record = captured(rank=1)
    assert ring.hold("a", record)
    assert "a" in ring
    found = ring.mark("a")
    assert found is not None
    assert equal(found, record)
    assert ring.mark("a") is None
    assert ring.mark("unknown") is None
    assert (ring.forgotten, ring.bytes, len(ring)) == (0, 0, 0)
    assert list((tmp_path / "held").iterdir()) == []


def test_the_oldest_are_forgotten(tmp_path: Path) -> None:
    ring = Ring(tmp_path, 2)
    for i in range(5):
        assert ring.hold(f"k{i}", large(0.9, request=f"r{i}"))
    assert ring.forgotten == 3
    assert [ring.mark(f"k{i}") is None for i in range(5)] == [True, True, True, False, False]


def test_a_record_larger_than_the_ring_is_forgotten_at_once(tmp_path: Path) -> None:
    ring = Ring(tmp_path, 1)
    ring.hold("a", captured())
    assert not ring.hold("b", large(2))
    assert (ring.forgotten, len(ring)) == (1, 1)
    assert not ring.hold("a", large(2))
    assert (ring.forgotten, len(ring)) == (3, 0)


def test_shared_memory_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from interv.sinks import ring as rings

    real, room = rings.write_part, [2]

    def write_part(*args: object, **more: object) -> Path:
        if sum(1 for _ in tmp_path.iterdir()) >= room[0]:
            raise OSError(28, "No space left on device")
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(rings, "write_part", write_part)
    ring = Ring(tmp_path, 100)
    for i in range(4):
        ring.hold(f"k{i}", captured())
    assert (len(ring), ring.forgotten) == (2, 2)
    room[0] = 0
    with pytest.raises(OSError, match="No space left"):
        ring.hold("k4", captured())
    assert (len(ring), ring.forgotten, ring.bytes) == (0, 4, 0)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from(["hold", "mark"]), st.integers(0, 4), st.floats(0.1, 1.2)),
        max_size=25,
    )
)
def test_the_ring_is_a_bounded_map(steps: list[tuple[str, int, float]]) -> None:
    """Against a plain list: the newest that fit, each handed out at most once, all counted."""
    folder = shared_folder("interv-test-")
    ring = Ring(folder, 1)
    model: list[tuple[str, int]] = []
    forgotten = 0
    for act, number, mib in steps:
        key = f"k{number}"
        if act == "hold":
            record = large(mib, request=key)
            forgotten += sum(1 for one in model if one[0] == key)
            model = [one for one in model if one[0] != key]
            if record.bytes > MIB:
                forgotten += 1
            else:
                model.append((key, record.bytes))
                while sum(size for _, size in model) > MIB:
                    model.pop(0)
                    forgotten += 1
            assert ring.hold(key, record) == (record.bytes <= MIB)
        else:
            found = ring.mark(key)
            assert (found is not None) == any(one[0] == key for one in model)
            model = [one for one in model if one[0] != key]
        assert (len(ring), ring.forgotten) == (len(model), forgotten)
        assert ring.bytes == sum(size for _, size in model) <= MIB
    ring.close()
    assert not folder.exists()
