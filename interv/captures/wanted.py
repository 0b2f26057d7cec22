"""What is wanted of captured rows, by their labels."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from interv.captures.visible import visible
from interv.errors import IntervError, suggest
from interv.sinks.schema import RecordLabels

MOST_SHOWN = 8
Wanted: TypeAlias = str | Collection[str] | None


@dataclass(frozen=True, slots=True)
class Query:
    """What is wanted of the rows; None stands for all."""

    request: frozenset[str] | None
    tag: frozenset[str] | None
    program: frozenset[str] | None
    site: frozenset[str] | None
    layer: frozenset[int] | None
    sample: int | None
    after: bool | None
    position: slice | None

    def parts(self, record: RecordLabels) -> Iterator[int]:
        """Yield the numbers of the parts of a record that may have wanted rows."""
        for name in ("request", "tag", "program"):
            if (wanted := getattr(self, name)) is not None and getattr(record, name) not in wanted:
                return
        if self.sample is not None and record.sample != self.sample:
            return
        for i, part in enumerate(record.parts):
            if (
                (self.site is None or part.site in self.site)
                and (self.layer is None or part.layer in self.layer)
                and (self.after is None or part.after == self.after)
            ):
                yield i


def texts(wanted: Wanted) -> frozenset[str] | None:
    """Return the texts that a label may be, None where it may be any."""
    if wanted is None:
        return None
    return frozenset([wanted] if isinstance(wanted, str) else wanted)


def positions(position: int | slice | None) -> slice | None:
    """Return the wanted positions as a slice with both ends; raises E276."""
    if position is None:
        return None
    one = slice(position, position + 1) if isinstance(position, int) else position
    start, stop = one.start or 0, 2**62 if one.stop is None else one.stop
    if one.step not in (None, 1) or start < 0 or stop < 0:
        message = "positions are a number from 0 on, or a slice of them without a step"
        raise IntervError("E276", message)
    return slice(start, stop)


def nothing_found(records: Collection[RecordLabels], wanted: Query) -> IntervError:
    """Return E276 with what there is under each label that was asked for."""
    there: dict[str, set[Any]] = {
        name: {getattr(record, name) for record in records}
        for name in ("request", "tag", "program", "sample")
    }
    for name in ("site", "layer", "after"):
        there[name] = {getattr(part, name) for record in records for part in record.parts}
    notes: list[str] = []
    helps: list[str] = []
    for name, here in there.items():
        asked = getattr(wanted, name)
        if asked is None:
            continue
        notes.append(f"{name}: {listed(here)}")
        for one in asked if isinstance(asked, frozenset) else ():
            if isinstance(one, str) and one not in here:
                helps += map(visible, suggest(one, here))
    return IntervError("E276", "no captured row has these labels", notes=notes, helps=helps)


def listed(values: Collection[Any]) -> str:
    """Return values in their order, and how many more there are."""
    shown = [visible(str(one)) for one in sorted(values)]
    more = f", and {len(shown) - MOST_SHOWN} more" if len(shown) > MOST_SHOWN else ""
    return ", ".join(shown[:MOST_SHOWN]) + more
