"""Counts of edited rows: one memory for all processes, and what `/metrics` says of it."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from interv.codegen.bundle import Bundle
from interv.runtime.config import SEATS, InterventionConfig, counters_path
from interv.runtime.counters import (
    HELD,
    USED,
    Counters,
    counters_of,
    report,
)
from interv.runtime.frontend import metrics
from interv.runtime.frontend.metrics import Collector, add_to_joint, expose
from interv.runtime.worker.device_counts import DeviceCounts
from interv.sinks.owner import sweep
from tests.runtime.small import SITES, bundle

ROOT = Path(__file__).parents[2]
TEXT = """\
# HELP interv_edited_rows_total Rows of the residual stream that a program has edited, by site.
# TYPE interv_edited_rows_total counter
interv_edited_rows_total{{program="calm",site="pre_attn[0]"}} {0}
interv_edited_rows_total{{program="<inline>",site="pre_attn[0]"}} {1}
interv_edited_rows_total{{program="calm",site="post_block[2]"}} {2}
interv_edited_rows_total{{program="<inline>",site="post_block[2]"}} {3}
# HELP interv_slots Slots for different configurations.
# TYPE interv_slots gauge
interv_slots {4}
# HELP interv_slots_used Slots that hold a configuration.
# TYPE interv_slots_used gauge
interv_slots_used {5}
# HELP interv_requests_held Requests that wait for a slot.
# TYPE interv_requests_held gauge
interv_requests_held {6}
"""
# Another process of the engine: it reads what is there, adds to it, and ends.
CHILD = """\
import sys
from interv.runtime.counters import HELD
from tests.runtime.test_counters import carried_at, shared, text_of
from interv.runtime.frontend.metrics import expose
from prometheus_client import REGISTRY

carried = carried_at(sys.argv[1])
counters = shared(carried)
counters.total[1, 0] += 2
counters.seats[3, 0, 1] = 9
counters.head[HELD] = 4
expose(carried)
print(text_of(REGISTRY), end="")
"""


def taking() -> Bundle:
    return replace(bundle(), inline=True)


def carried_at(path: str) -> InterventionConfig:
    return InterventionConfig(taking(), slots=5, counters=path)


def shared(carried: InterventionConfig, rank: int = 0) -> Counters:
    """Open the counters as every process of a data-parallel rank does."""
    config = SimpleNamespace(parallel_config=SimpleNamespace(data_parallel_rank=rank))
    return counters_of(carried, config)


def text_of(registry: CollectorRegistry) -> str:
    """Return the exposition of our metrics alone."""
    lines = generate_latest(registry).decode().splitlines(keepends=True)
    return "".join(line for line in lines if "interv_" in line)


def registered(carried: InterventionConfig) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Collector(carried))
    return registry


def test_two_openings_of_a_file_are_one_memory(tmp_path: Path) -> None:
    path = tmp_path / "counts"
    one, other = Counters(path, taking()), Counters(path, taking())
    one.total[0, 1] = 5
    one.seats[2, 1, 0] = 6
    one.head[USED] = 7
    assert other.rows().tolist() == [[0, 5], [0, 0]]
    assert other.rows(2).tolist() == [[0, 0], [6, 0]]
    assert int(other.head[USED]) == 7
    # What is read is a copy, not the memory.
    other.rows()[:] = 1
    assert one.rows().tolist() == [[0, 5], [0, 0]]
    # One that comes later finds what was counted; nobody else may read the file.
    assert Counters(path, taking()).rows().tolist() == [[0, 5], [0, 0]]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_no_number_lies_in_another(tmp_path: Path) -> None:
    one = Counters(tmp_path / "counts", taking())
    assert one.total.shape == (2, 2)
    assert one.seats.shape == (SEATS, 2, 2)
    everything = [one.head[:2], one.total, *one.seats]
    for i, part in enumerate(everything):
        part.fill_(i + 1)
    assert [set(part.flatten().tolist()) for part in everything] == [
        {i + 1} for i in range(len(everything))
    ]


def test_counters_without_a_file_are_those_of_one_process() -> None:
    one, other = Counters(None, bundle()), Counters(None, bundle())
    one.total += 1
    assert one.rows().tolist() == [[1], [1]]
    assert other.rows().tolist() == [[0], [0]]


def test_processes_see_the_same_numbers_and_the_last_removes_the_files(tmp_path: Path) -> None:
    carried = carried_at(str(tmp_path / "interv-1.counts"))
    mine = shared(carried)
    mine.total[1, 0] = 40
    mine.head[USED] = 1
    command = [sys.executable, "-c", CHILD, carried.counters]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    made = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=True, cwd=ROOT
    )
    assert made.stdout == TEXT.format("0.0", "0.0", "42.0", "0.0", "5.0", "1.0", "4.0")
    assert mine.rows().tolist() == [[0, 0], [42, 0]]
    assert mine.rows(3).tolist() == [[0, 9], [0, 0]]
    assert int(mine.head[HELD]) == 4
    assert list(tmp_path.iterdir()) == []


def test_the_exposition_is_exact(tmp_path: Path) -> None:
    carried = carried_at(str(tmp_path / "interv-1.counts"))
    registry = registered(carried)
    nothing = ["0.0"] * 7
    # Before the engine runs there is no slot yet.
    assert text_of(registry) == TEXT.format(*nothing)
    one = shared(carried)
    one.total.copy_(torch.tensor([[3, 1], [2**40, 0]]))
    one.head[USED], one.head[HELD] = 2, 1
    numbers = ("3.0", "1.0", "1.099511627776e+12", "0.0", "5.0", "2.0", "1.0")
    assert text_of(registry) == TEXT.format(*numbers)


def test_a_program_has_a_line_only_where_it_edits(tmp_path: Path) -> None:
    made = bundle()
    alone = replace(made.sites[0], programs={"formal": made.sites[0].programs["calm"]})
    two = replace(made, sites=(alone, made.sites[1]), programs=("calm", "formal"))
    carried = InterventionConfig(two, counters=str(tmp_path / "interv-1.counts"))
    lines = [line for line in text_of(registered(carried)).splitlines() if "rows_total{" in line]
    assert lines == [
        'interv_edited_rows_total{program="formal",site="pre_attn[0]"} 0.0',
        'interv_edited_rows_total{program="calm",site="post_block[2]"} 0.0',
    ]


def test_data_parallel_ranks_add_up(tmp_path: Path) -> None:
    carried = carried_at(str(tmp_path / "counts[1]"))
    for rank in range(3):
        one = shared(carried, rank)
        one.total += 10**rank
        one.head[USED], one.head[HELD] = rank, 1
    # The counts of another engine beside them do not count.
    shared(carried_at(str(tmp_path / "counts1"))).total.fill_(7)
    expected = TEXT.format(*["111.0"] * 4, "15.0", "3.0", "3.0")
    assert text_of(registered(carried)) == expected


@pytest.fixture
def clean() -> Iterator[None]:
    """Take our collector from the process's registry again."""
    yield
    REGISTRY.unregister(getattr(REGISTRY, metrics._NAME))
    delattr(REGISTRY, metrics._NAME)


@pytest.mark.usefixtures("clean")
def test_another_engine_in_the_process_takes_the_place_of_the_first(tmp_path: Path) -> None:
    first, second = (carried_at(str(tmp_path / name)) for name in ("one", "two"))
    for rows, one in ((3, first), (4, second)):
        expose(one)
        shared(one).total.fill_(rows)
        assert text_of(REGISTRY) == TEXT.format(*[f"{rows}.0"] * 4, "5.0", "0.0", "0.0")


def join(registry: CollectorRegistry) -> None:
    """Join the metrics of several processes in a registry, as a server does for each scrape."""
    add_to_joint(lambda self, registry: None, None, registry)


@pytest.mark.usefixtures("clean")
def test_a_registry_that_joins_processes_has_them_too(tmp_path: Path) -> None:
    carried = carried_at(str(tmp_path / "interv-1.counts"))
    expose(carried)
    shared(carried)
    own = CollectorRegistry()
    for registry in (own, own, REGISTRY):
        join(registry)
        text = text_of(registry)
        assert text == TEXT.format(*["0.0"] * 4, "5.0", "0.0", "0.0")


def test_a_server_without_interventions_has_no_such_metric() -> None:
    own = CollectorRegistry()
    join(own)
    assert generate_latest(own) == b""


def test_an_engine_owns_its_files_until_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "shared_place", lambda: tmp_path)
    ends: list[Any] = []
    monkeypatch.setattr(atexit, "register", lambda *call: ends.append(call))
    carried = carried_at(str(tmp_path / "interv-1.counts"))
    metrics.expose(carried)
    for rank in (0, 1):
        shared(carried, rank)
    others = [tmp_path / name for name in ("counts1.0", "interv-11.counts.0")]
    for path in others:
        path.touch()
    sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 5
    ((release, holds),) = ends
    release(holds)
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_engines_count_in_different_files() -> None:
    assert len({counters_path() for _ in range(8)}) == 8


def test_a_report_names_programs_and_sites() -> None:
    one = Counters(None, taking())
    assert report(one.rows(0), taking()) == {}
    one.seats[0, 1, 0], one.seats[0, 0, 1], one.seats[1, 0, 0] = 3, 4, 5
    names = [str(site) for site in SITES]
    assert report(one.rows(0), taking()) == {"calm": {names[1]: 3}, "<inline>": {names[0]: 4}}
    assert report(one.rows(1), taking()) == {"calm": {names[0]: 5}}


def test_kernels_on_the_host_count_where_others_read() -> None:
    one = Counters(None, taking())
    counts = DeviceCounts(one, torch.device("cpu"))
    site: Any = counts.site(1)
    site.total[0] += 2
    site.seats[7, 1] += 3
    assert one.rows().tolist() == [[0, 0], [2, 0]]
    assert one.rows(7).tolist() == [[0, 0], [0, 3]]
    counts.publish()
    counts.take(7)
    assert not one.rows(7).any()
    assert one.rows().any()
    one.head[USED] = 1
    counts.clear()
    assert not one.rows().any()
    assert int(one.head[USED]) == 1
