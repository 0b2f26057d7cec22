"""A folder of captures: two requests, one in two samples, at three places."""

from __future__ import annotations

from pathlib import Path

import torch

from interv.sinks.record import Captured
from tests.sinks.made import captured, filesystem, part

WIDTH = 8


def records() -> list[Captured]:
    """Return the records of the folder, in the order they are written."""
    after = part(12, 6, after=True)
    return [
        captured(part(12, 6), after, part(20, 6), request="a", tag="red"),
        captured(part(12, 4, seed=5), part(20, 4, seed=5), request="b", tag="blue"),
        captured(part(12, 3, start=7, seed=9), request="b", sample=1, tag="blue"),
    ]


def folder(path: Path, layout: str = "packed", *, close: bool = True, **options: object) -> Path:
    """Write the records into `path` and return it."""
    sink = filesystem(path, layout=layout, **options)
    for record in records():
        sink.put(record)
    sink.flush()
    if close:
        sink.close()
    return path


def all_rows() -> torch.Tensor:
    """Return every row of the records, in their order."""
    return torch.cat([one.rows for record in records() for one in record.parts])
