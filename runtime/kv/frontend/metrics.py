"""`interv_kv_*` on `/metrics`."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from interv.runtime.kv.tally import BLOCKS, BYTES, COMPACTIONS, TOKENS, Tally, tally_path

_METRICS = {
    "interv_kv_compactions": ("Compactions of requests' KV caches.", COMPACTIONS),
    "interv_kv_dropped_tokens": ("Tokens dropped from KV caches.", TOKENS),
    "interv_kv_freed_blocks": ("Blocks that compactions gave back to the pool.", BLOCKS),
    "interv_kv_freed_bytes": ("Bytes of those blocks, on one rank.", BYTES),
}


def kv_metrics(counters: str) -> Iterator[Any]:
    """Yield the metrics of an engine's compactions; data-parallel ranks add up."""
    from prometheus_client.core import CounterMetricFamily

    total = np.zeros(len(_METRICS), np.int64)
    for found in tally_files(counters):
        total += Tally(Path(found)).counts
    for name, (text, index) in _METRICS.items():
        yield CounterMetricFamily(name, text, value=int(total[index]))


def tally_files(counters: str) -> list[str]:
    """Return the files that an engine's data-parallel ranks count in."""
    return sorted(glob.glob(tally_path(glob.escape(counters), "*")))
