"""Which records the files of a folder hold, by their labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from interv.errors import IntervError
from interv.sinks.manifest import read_manifest
from interv.sinks.reading import CaptureFile
from interv.sinks.record import Captured, Part
from interv.sinks.schema import MANIFEST, SUFFIX, RecordLabels

_Place: TypeAlias = tuple[object, ...]
# What tells one place of one record from others, whatever its form.
_LABELS = (
    *("request", "sample", "tag", "program", "statement", "digest", "model"),
    *("prompt_tokens", "tokens", "ended"),
)


class Present:
    """What was there when it was looked at: files that the manifest names, and others."""

    def __init__(self, folder: Path) -> None:
        self._listed: set[_Place] = set()
        self._unlisted: dict[_Place, Path] = {}
        manifest = folder / MANIFEST
        listed = read_manifest(manifest).files if manifest.exists() else {}
        for path in folder.glob(f"*{SUFFIX}"):
            if path.name in listed:
                self._listed.update(_places(listed[path.name].records))
            else:
                self._unlisted.update(dict.fromkeys(_places(_own_labels(path)), path))

    def has(self, captured: Captured, part: Part) -> bool:
        """Say whether a file has this place of a record, with as many rows."""
        place = _place(captured, part)
        return place in self._listed or place in self._unlisted

    def take_unlisted(self, captured: Captured) -> Iterator[Path]:
        """Yield, once each, the files that have a place of a record and no line in the manifest."""
        for part in captured.parts:
            path = self._unlisted.get(_place(captured, part))
            if path is not None:
                yield path
                own = {place: one for place, one in self._unlisted.items() if one == path}
                self._listed.update(own)
                for place in own:
                    del self._unlisted[place]


def _own_labels(path: Path) -> tuple[RecordLabels, ...]:
    try:
        with CaptureFile(path) as file:
            return file.records
    except IntervError:  # somebody else's
        return ()


def _places(records: Iterable[RecordLabels]) -> Iterator[_Place]:
    for record in records:
        for part in record.parts:
            yield _labels(record), part.site, part.layer, part.after, part.shape


def _place(captured: Captured, part: Part) -> _Place:
    shape = (part.rows.shape[0], part.rows.shape[1])
    return _labels(captured), part.site, part.layer, part.after, shape


def _labels(record: RecordLabels | Captured) -> tuple[object, ...]:
    return tuple(getattr(record, name) for name in _LABELS)
