"""Captured rows as an engine would hand them over, and sinks that do as they are told."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import Future
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from interv.sinks.base import Detail, Sink, SinkOptions
from interv.sinks.delivery import Delivery, Outcome
from interv.sinks.filesystem import Filesystem
from interv.sinks.journal import Journal
from interv.sinks.reading import CaptureFile
from interv.sinks.record import Captured, Part

MIB = 1 << 20


def part(
    layer: int = 12,
    count: int = 5,
    width: int = 8,
    *,
    site: str = "post_block",
    after: bool = False,
    dtype: torch.dtype = torch.bfloat16,
    start: int = 0,
    seed: int = 0,
) -> Part:
    """Return `count` random rows of one place, at positions from `start` on."""
    generator = torch.Generator().manual_seed(seed + layer)
    rows = torch.randn(count, width, generator=generator).to(dtype)
    position = torch.arange(start, start + count)
    return Part(site, layer, after, rows, position, position * 7 + 3)


def captured(*parts: Part, **labels: Any) -> Captured:
    """Return a record of these parts, of two places where none is given."""
    parts = parts or (part(12), part(20))
    most = max(int(one.position[-1]) + 2 if len(one.position) else 1 for one in parts)
    facts: dict[str, Any] = {
        "request": "cmpl-1",
        "sample": 0,
        "tag": "",
        "program": "look",
        "statement": "look.interv:4",
        "digest": "d" * 64,
        "model": "tiny",
        "prompt_tokens": min(3, most),
        "tokens": most,
        "ended": "finished",
        "rank": None,
    }
    return Captured(**(facts | labels), parts=parts)


def large(mib: float = 1.0, **labels: Any) -> Captured:
    """Return a record of a little less than so many MiB."""
    count = int(mib * MIB / (256 * 2 + 16)) - 1
    return captured(part(0, count, 256), **labels)


def equal(one: Captured, other: Captured, *, exact: bool = True) -> bool:
    """Say whether two records have the same labels, tokens and (where `exact`) rows."""
    names = [field.name for field in fields(Captured) if field.name != "parts"]
    if any(getattr(one, name) != getattr(other, name) for name in names):
        return False
    if len(one.parts) != len(other.parts):
        return False
    return all(_equal(a, b, exact) for a, b in zip(one.parts, other.parts, strict=True))


def _equal(one: Part, other: Part, exact: bool) -> bool:
    same = (one.site, one.layer, one.after) == (other.site, other.layer, other.after)
    same = same and torch.equal(one.position, other.position)
    same = same and torch.equal(one.token_id, other.token_id)
    same = same and one.rows.dtype == other.rows.dtype and one.rows.shape == other.rows.shape
    if not exact:
        return same
    # Bit for bit, so that NaN equals itself.
    return same and torch.equal(one.rows.view(torch.uint8), other.rows.view(torch.uint8))


def filesystem(folder: Path, **options: Any) -> Filesystem:
    """Open a sink that writes to `folder`; fsync is off, which no test here can see."""
    given = {"folder": str(folder), "fsync": False, **options}
    return Filesystem(Filesystem.Options.model_validate(given), Path("/"))


def read(folder: Path) -> list[Captured]:
    """Return the records of all files of a folder, by their names."""
    records = []
    for path in sorted(folder.glob("*.safetensors")):
        with CaptureFile(path) as file:
            records += file.captured()
    return records


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def put(sink: Filesystem, record: Captured) -> Detail:
    """Store a record, with its shard where it has one, and return what the sink says."""
    stored = sink.put(record)
    if isinstance(stored, Future):
        sink.flush()
        return stored.result(0)
    return stored


def disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let writing a file end as it does on a full disk."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("interv.sinks.container.write", full)


class Held(Sink):
    """A sink that takes records when it is let, and remembers them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(SinkOptions(**options), Path("/"))
        self.open = threading.Event()
        self.reached = threading.Event()
        self.taken: list[Captured] = []
        self.closed = self.flushed = 0

    def put(self, captured: Captured) -> Detail:
        self.reached.set()
        assert self.open.wait(60)
        self.taken.append(captured)
        return {"number": len(self.taken)}

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed += 1


class Told:
    """What a delivery has said: outcomes and errors, in their order."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.errors: list[str] = []
        self._change = threading.Condition()

    def deliver(self, sink: Sink, name: str = "acts", journal: Journal | None = None) -> Delivery:
        """Return a delivery to `sink` that tells here."""
        report = lambda error: self.errors.append(str(error))  # noqa: E731
        return Delivery(sink, name, self._done, report, journal)

    def wait(self, count: int) -> list[Outcome]:
        """Wait until so many outcomes are known, and return them."""
        with self._change:
            assert self._change.wait_for(lambda: len(self.outcomes) >= count, 60)
            return list(self.outcomes)

    def _done(self, outcome: Outcome) -> None:
        with self._change:
            self.outcomes.append(outcome)
            self._change.notify_all()
