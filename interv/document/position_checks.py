"""What is wrong with lists and strides of positions, beyond what every number can be."""

from __future__ import annotations

from collections.abc import Iterator

from interv.document.document import Document, SpecPath
from interv.document.positions import MOST_BETWEEN, MOST_POSITIONS, runs_of
from interv.document.selectors import position_text
from interv.document.spec import PositionRange, Positions, Selector, Stride
from interv.document.wording import path_notes
from interv.errors import IntervError

# Where strides meet is found by walking what they repeat in.
MOST_STEP = 1 << 16


def position_faults(document: Document, path: SpecPath, leaf: Selector) -> Iterator[IntervError]:
    """Yield E880 for a list that is too long, E882 for a step that is too large, E208."""
    if isinstance(leaf, Positions):
        yield from _empty_ranges(document, path, leaf)
        yield from list_faults(document, path, leaf)
    elif isinstance(leaf, Stride) and leaf.step > MOST_STEP:
        yield IntervError(
            "E882",
            f"a step of {leaf.step} is too large",
            document.span(*path),
            "too large",
            notes=(f"a step is at most {MOST_STEP}", *path_notes(document, path)),
        )


def list_faults(document: Document, path: SpecPath, leaf: Selector) -> Iterator[IntervError]:
    """Yield E880 where a list is too long, or holds too many ranges between both ends."""
    if not isinstance(leaf, Positions):
        return
    runs = runs_of(leaf)
    count = len(runs.start) + len(runs.end)
    listed, most, noun = count, MOST_POSITIONS, "runs of positions"
    if len(runs.between) > MOST_BETWEEN:
        listed, most, noun = len(runs.between), MOST_BETWEEN, "ranges between both ends"
    if listed > most:
        yield IntervError(
            "E880",
            f"this list has {listed} {noun}, {most} are possible",
            document.span(*path),
            "too long",
            notes=path_notes(document, path),
            helps=("positions beside each other are one run: write them as 4..8",),
        )


def _empty_ranges(document: Document, path: SpecPath, leaf: Positions) -> Iterator[IntervError]:
    for i, item in enumerate(leaf.items):
        if not isinstance(item, PositionRange) or item.first <= item.last:
            continue
        if (item.first < 0) == (item.last < 0):
            where = (*path, "items", i)
            yield IntervError(
                "E208",
                f"{position_text(item)} is an empty range of positions",
                document.span(*where),
                "empty range",
                notes=path_notes(document, where),
                helps=(f"did you mean '{item.last}..{item.first}'?",),
            )
