"""What became of captured rows, as another process reads it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from interv.errors import IntervError
from interv.sinks import results as module
from interv.sinks.results import Result, Results, check_handle, engine_folder, wait_for

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
    assert Results(tmp_path).complete("h", 2) == (ONE,)
    assert Results(tmp_path).complete("h", 3) is None
    assert Results(tmp_path).complete("other") is None


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "shared_place", lambda: tmp_path)
    return tmp_path


def test_waiting_ends_with_the_last_stage_of_the_last_sample(shared: Path) -> None:
    other, results = (Results(shared / f"interv-{one}.captures", stages=2) for one in "ab")
    other.write("g", "0-0", [ONE])
    results.write("h", "0-0", [ONE])
    for part in ("0-1", "1-0"):
        results.write("h", part, [])
    later = threading.Timer(0.1, lambda: results.write("h", "1-1", [ONE]))
    later.start()
    assert wait_for("h", 2, 30) == (ONE, ONE)
    assert wait_for("h", 1, 0) == (ONE, ONE)


def test_what_is_not_there_is_said(shared: Path) -> None:
    with pytest.raises(IntervError) as caught:
        wait_for("4f1d", 2, 0)
    assert str(caught.value) == (
        "error[E563]: the captured rows of '4f1d' are not there after 0 s\n"
        "  = 0 parts have arrived\n"
        "  = wait longer, or look for errors of the sink in the engine's log"
    )


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a.b", "x" * 81])
def test_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(IntervError, match="is not the handle of a captured request"):
        Results(tmp_path).read(name)
    with pytest.raises(IntervError, match="is not the handle of a captured request"):
        check_handle(name)
    with pytest.raises(IntervError, match="is not the name of an engine"):
        engine_folder(name)


def test_the_oldest_results_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 8)
    results = Results(tmp_path)
    for i in range(20):
        results.write(f"h{i}", "0-0", [ONE])
    kept = [i for i in range(20) if results.complete(f"h{i}") is not None]
    assert (len(kept), kept[-1]) == (8, 19)
