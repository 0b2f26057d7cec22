"""What `interv doctor` says of vLLM's internals."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from interv.cli import build
from interv.commands.findings import Finding
from interv.commands.seams import look_at_seams
from interv.runtime import compat
from interv.runtime.compat import lookup, version
from interv.runtime.compat.lookup import Found
from interv.runtime.compat.seams import SEAMS

COUNT = len(SEAMS)


def found(monkeypatch: pytest.MonkeyPatch, **ways: int | None) -> None:
    """Have the seams of these needs found by these ways, and all others by their newest."""
    made = tuple(Found(one, ways.get(one.needed_by, 0)) for one in SEAMS)
    for module in (lookup, compat):
        monkeypatch.setattr(module, "look", lambda: made)


def test_all_seams_are_here() -> None:
    assert look_at_seams() == Finding("seams", "ok", f"{COUNT} of {COUNT} are there")


def test_seams_in_the_way_of_an_older_vllm_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tuple(Found(one, len(one.candidates) - 1) for one in SEAMS)
    for module in (lookup, compat):
        monkeypatch.setattr(module, "look", lambda: made)
    older = ", ".join(one.title for one in SEAMS if len(one.candidates) > 1)
    assert "a request may wait" in older
    assert look_at_seams() == Finding(
        "seams", "ok", f"{COUNT} of {COUNT} are there; in the way of an older vLLM: {older}"
    )


def test_without_what_policies_need_only_those_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, kv=None)
    row = look_at_seams()
    count = sum(one.needed_by != "kv" for one in SEAMS)
    assert (row.state, row.help) == ("warn", f"install {compat.tried()}")
    start = f"{count} of {COUNT} are there; none for KV policies: 'a chunk may end early', "
    assert row.found.startswith(start)


def test_without_what_everything_needs_interv_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, interv=None)
    monkeypatch.setattr(version, "vllm_version", lambda: "0.99.0")
    row = look_at_seams()
    assert row.state == "fail"
    assert "vLLM 0.99.0 is not supported; missing for 'arguments': " in row.found


def test_a_newer_vllm_is_only_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "vllm_version", lambda: "0.99.0")
    tried = "vLLM 0.26 to 0.33"
    said = f"{COUNT} of {COUNT} are there, but interv was tried on {tried}"
    assert look_at_seams() == Finding("seams", "warn", said)


def test_the_table_has_a_row_for_each_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(build(["doctor"]), ["doctor", "--seams"])
    rows = [line for line in result.output.splitlines() if " 1 of " in line]
    assert len(rows) == COUNT
    (waits,) = [line for line in rows if "a request may wait" in line]
    assert waits.split() == [
        *(["✓", "a", "request", "may", "wait", "scheduler", "everything", "1", "of", "2"]),
        "v1.core.sched.scheduler:Scheduler._handle_blocked_waiting_request",
    ]
