"""Which records the files of a folder hold, by their labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from interv.errors import IntervError
from interv.sinks.manifest import read_manifest
from interv.sinks.reading import CaptureFile
from interv.sinks.record import Captured, Part
from interv.sinks.schema import MANIFEST, SUFFIX, RecordLabels

# What tells one place of one record from others, whatever its form.
_LABELS = (
    *("request", "sample", "tag", "program", "statement", "digest", "model"),
    *("prompt_tokens", "tokens", "ended"),
)


class Present:
    """What was there when it was looked at: files that the manifest names, and others."""

    def __init__(self, folder: Path) -> None:
        self._known = {key for record in _records(folder) for key in _keys(record)}

    def has(self, captured: Captured, part: Part) -> bool:
        """Say whether a file has this place of a record, with as many rows."""
        shape = (part.rows.shape[0], part.rows.shape[1])
        return (_labels(captured), part.site, part.layer, part.after, shape) in self._known


def _records(folder: Path) -> Iterator[RecordLabels]:
    listed = read_manifest(folder / MANIFEST).files if (folder / MANIFEST).exists() else {}
    for path in folder.glob(f"*{SUFFIX}"):
        if path.name in listed:
            yield from listed[path.name].records
            continue
        try:
            with CaptureFile(path) as file:
                yield from file.records
        except IntervError:  # somebody else's
            continue


def _keys(record: RecordLabels) -> Iterator[tuple[object, ...]]:
    for part in record.parts:
        yield _labels(record), part.site, part.layer, part.after, part.shape


def _labels(record: RecordLabels | Captured) -> tuple[object, ...]:
    return tuple(getattr(record, name) for name in _LABELS)
