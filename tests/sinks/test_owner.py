"""Whose files are removed: by locks of the kernel, across processes, namespaces and races."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from interv.sinks.owner import Hold, new_name, sweep

# Holds a name until its input ends, with a folder and a file of it.
HOLDER = """
import sys
from pathlib import Path
from interv.sinks.owner import Hold
place, name = Path(sys.argv[1]), sys.argv[2]
hold = Hold(place, name)
(place / f"{name}.captures" / "results").mkdir(parents=True)
(place / f"{name}.counts.0").touch()
print("held", flush=True)
sys.stdin.read()
"""
SWEEPER = "import sys; from pathlib import Path; from interv.sinks.owner import sweep; " + (
    "sweep(Path(sys.argv[1]))"
)


@contextmanager
def holding(place: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", HOLDER, str(place), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            yield holder
        finally:
            holder.kill()


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(
    tmp_path: Path,
) -> None:
    with holding(tmp_path, "interv-a") as first, holding(tmp_path, "interv-b"):
        before = names(tmp_path)
        sweep(tmp_path)
        assert names(tmp_path) == before
        first.kill()
        first.wait()
        sweep(tmp_path)
        assert names(tmp_path) == ["interv-b.captures", "interv-b.counts.0", "interv-b.lock"]


def test_an_engine_of_another_pid_namespace_is_left_alone(tmp_path: Path) -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("the kernel gives this user no PID namespace")
    with holding(tmp_path, "interv-a") as holder:
        before = names(tmp_path)
        subprocess.run([*command, sys.executable, "-c", SWEEPER, str(tmp_path)], check=True)
        assert names(tmp_path) == before
        holder.kill()
        holder.wait()
        subprocess.run([*command, sys.executable, "-c", SWEEPER, str(tmp_path)], check=True)
    assert names(tmp_path) == []


def test_the_last_holder_removes_all(tmp_path: Path) -> None:
    first, second = Hold(tmp_path, "interv-a"), Hold(tmp_path, "interv-a")
    (tmp_path / "interv-a.counts.0").touch()
    (tmp_path / "interv-ab.counts.0").touch()
    first.release()
    first.release()
    assert names(tmp_path) == ["interv-a.counts.0", "interv-a.lock", "interv-ab.counts.0"]
    second.release()
    assert names(tmp_path) == ["interv-ab.counts.0"]


def test_what_is_to_be_kept_stays_with_its_lock(tmp_path: Path) -> None:
    hold = Hold(tmp_path, "interv-a")
    (tmp_path / "interv-a.captures").mkdir()
    asked: list[str] = []
    hold.release(lambda path: bool(asked.append(path.name)))
    assert (asked, names(tmp_path)) == (
        ["interv-a.captures"],
        ["interv-a.captures", "interv-a.lock"],
    )
    sweep(tmp_path, lambda path: True)
    assert names(tmp_path) == []


def test_no_link_is_followed_and_no_other_file_touched(tmp_path: Path) -> None:
    place, other = tmp_path / "place", tmp_path / "other"
    place.mkdir()
    other.mkdir()
    (other / "mine").touch()
    (other / "lock").touch()
    (place / "interv-linked.lock").symlink_to(other / "lock")
    (place / "interv-linked.captures").mkdir()
    os.mkfifo(place / "interv-pipe.lock")
    (place / "interv-b.lock").touch()
    (place / "interv-b.captures").symlink_to(other)
    (place / "somebody.lock").touch()
    sweep(place)
    kept = ["interv-linked.captures", "interv-linked.lock", "interv-pipe.lock", "somebody.lock"]
    assert names(place) == kept
    assert names(other) == ["lock", "mine"]


def test_files_of_another_user_stay(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    for name in ("interv-a.lock", "interv-b.lock", "interv-b.counts.0"):
        (tmp_path / name).touch()
    os.chown(tmp_path / "interv-a.lock", 12345, 12345)
    os.chown(tmp_path / "interv-b.counts.0", 12345, 12345)
    sweep(tmp_path)
    assert names(tmp_path) == ["interv-a.lock", "interv-b.counts.0", "interv-b.lock"]


def test_engines_that_start_while_others_sweep_keep_what_they_make(tmp_path: Path) -> None:
    stop, lost = threading.Event(), []

    def sweep_on() -> None:
        while not stop.is_set():
            sweep(tmp_path)

    def start_and_end(name: str) -> None:
        for _ in range(100):
            hold, mine = Hold(tmp_path, name), tmp_path / f"{name}.captures"
            mine.mkdir(exist_ok=True)
            (mine / "rows").touch()
            if not (mine / "rows").exists():
                lost.append(name)
            hold.release()

    sweepers = [threading.Thread(target=sweep_on) for _ in range(3)]
    # Two of one name: the second takes it while what the first left is being removed.
    engines = [threading.Thread(target=start_and_end, args=(n,)) for n in ("interv-a", new_name())]
    for one in [*sweepers, *engines]:
        one.start()
    for one in engines:
        one.join()
    stop.set()
    for one in sweepers:
        one.join()
    sweep(tmp_path)
    assert (lost, names(tmp_path)) == ([], [])
