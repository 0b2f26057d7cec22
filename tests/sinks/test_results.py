"""What became of captured rows, as another process reads it; and whose folders are removed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from interv.errors import IntervError
from interv.sinks.results import Result, Results, claim, engine_folder

ONE = Result("mine", 0, "calm.interv:3", "calm", "rows", "memory", "ok", 4, {"handle": "h.0-0.1"})


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.write("h", "0-0", [ONE, replace(ONE, status="error", error="gone")])
    results.write("h", "1-0", [])
    assert results.read("h") == {
        "0-0": (ONE, replace(ONE, status="error", error="gone")),
        "1-0": (),
    }
    results.write("h", "0-0", [ONE])
    assert Results(tmp_path).wait("h", 2, 0) == (ONE,)


def test_waiting_ends_with_the_last_part(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.write("h", "0-0", [ONE])
    later = threading.Timer(0.1, lambda: results.write("h", "0-1", [ONE]))
    later.start()
    assert results.wait("h", 2, 30) == (ONE, ONE)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(IntervError) as caught:
        Results(tmp_path).wait("4f1d", 2, 0)
    assert str(caught.value) == (
        "error[E563]: the captured rows of '4f1d' are not there after 0 s\n"
        "  = 0 of 2 parts have arrived\n"
        "  = wait longer, or look for errors of the sink in the engine's log"
    )


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a.b", "x" * 81])
def test_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(IntervError, match="is not the handle of a captured request"):
        Results(tmp_path).read(name)
    with pytest.raises(IntervError, match="is not the name of an engine"):
        engine_folder(name)


def test_folders_of_killed_engines_are_removed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    dead, alive, unknown, left = (tmp_path / f"interv-{name}.captures" for name in "abce")
    for folder in (dead, alive, unknown, left):
        folder.mkdir()
    os.utime(left, (0, 0))
    (dead / f"pid-{done.stdout.strip()}").touch()
    (alive / f"pid-{os.getppid()}").touch()
    claim(tmp_path / "interv-d.captures")
    assert sorted(path.name[7] for path in tmp_path.iterdir()) == ["b", "c", "d"]
