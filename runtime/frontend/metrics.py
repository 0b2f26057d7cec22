"""`interv_*` on `/metrics`, read from the counters that the engine's processes share."""

from __future__ import annotations

import atexit
import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interv.codegen.bundle import INLINE, Bundle
from interv.runtime.config import InterventionConfig
from interv.runtime.counters import HELD, RECORDS, ROWS, USED, Counters
from interv.runtime.kv.frontend.metrics import kv_metrics
from interv.sinks.owner import Hold, shared_place, sweep
from interv.sinks.rescue import rescue, rescue_soon

_NAME = "_interv_collector"


class Collector:
    """A Prometheus collector of one engine's counters; data-parallel ranks add up."""

    def __init__(self, carried: InterventionConfig) -> None:
        self._bundle, self._path, self._slots = carried.bundle, carried.counters, carried.slots

    def describe(self) -> list[Any]:
        """Name no metric beforehand: there are none until the engine runs."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield every metric with its present value."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        counters = list(opened(self._path, self._bundle))
        rows = CounterMetricFamily(
            "interv_edited_rows",
            "Rows of the residual stream that a program has edited, by site.",
            labels=["program", "site"],
        )
        for i, table in enumerate(self._bundle.sites):
            for p, program in enumerate(self._bundle.counted):
                if program in table.programs or program == INLINE:
                    edited = sum(int(one.total[i, p]) for one in counters)
                    rows.add_metric([program, str(table.site)], edited)
        yield rows
        said = {
            "interv_slots": ("Slots for different configurations.", self._slots * len(counters)),
            "interv_slots_used": (
                "Slots that hold a configuration.",
                sum(int(one.head[USED]) for one in counters),
            ),
            "interv_requests_held": (
                "Requests that wait for a slot.",
                sum(int(one.head[HELD]) for one in counters),
            ),
        }
        for name, (text, value) in said.items():
            yield GaugeMetricFamily(name, text, value=value)
        if self._bundle.kv is not None:
            yield from kv_metrics(self._path)
        if self._bundle.captures:
            yield from _captured(counters)


def _captured(counters: list[Counters]) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily

    text = "Records of captured rows by what became of them; one that was held counts again later."
    records = CounterMetricFamily("interv_capture_records", text, labels=["status"])
    for status, place in RECORDS.items():
        records.add_metric([status], sum(int(one.head[place]) for one in counters))
    yield records
    rows = sum(int(one.head[ROWS]) for one in counters)
    yield CounterMetricFamily(
        "interv_captured_rows", "Rows of the residual stream that reached their sink.", value=rows
    )


def opened(path: str, bundle: Bundle) -> Iterator[Counters]:
    """Open the counters of each data-parallel rank, without the seats of single requests."""
    for found in sorted(glob.glob(f"{glob.escape(path)}.[0-9]*")):
        yield Counters(Path(found), bundle, seats=0)


def expose(carried: InterventionConfig) -> None:
    """Put an engine's counters on this process's metrics, and own its files until the end.

    What engines have left that are gone is removed first.
    """
    from prometheus_client import REGISTRY

    places = sorted({Path(carried.counters).parent, shared_place()})
    holds = [Hold(place, carried.engine) for place in places]
    for place in places:
        sweep(place, rescue)

    collector = Collector(carried)
    # An engine made later in the same process takes the place of the one before.
    _register(REGISTRY, collector)
    atexit.register(_release, holds)


def _register(registry: Any, collector: Collector) -> None:
    before = getattr(registry, _NAME, None)
    if before is not None:
        registry.unregister(before)
    registry.register(collector)
    setattr(registry, _NAME, collector)


def add_to_joint(original: Any, self: Any, registry: Any, *args: Any, **kwargs: Any) -> None:
    """Add our metrics where a server of several processes joins theirs in another registry.

    Wraps `MultiProcessCollector.__init__`.
    """
    from prometheus_client import REGISTRY

    original(self, registry, *args, **kwargs)
    collector = getattr(REGISTRY, _NAME, None)
    if collector is not None and registry not in (None, REGISTRY):
        _register(registry, collector)


def _release(holds: list[Hold]) -> None:
    for one in holds:
        one.release(rescue_soon)
