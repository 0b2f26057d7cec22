"""Check what a vector's declaration says of its file: which row, and what rows are numbered by."""

from __future__ import annotations

from collections.abc import Iterator

from interv.document.document import Document, SpecPath
from interv.document.wording import path_notes
from interv.errors import IntervError

# No tensor that can be read has more rows.
LARGEST_ROW = 2**31 - 1


def vector_faults(document: Document) -> Iterator[IntervError]:
    """Yield E207 for rows that no file has, E238 for a numbering of the one row that is taken."""
    for i, vector in enumerate(document.spec.vectors):
        if vector.row is not None and vector.row > LARGEST_ROW:
            path: SpecPath = ("vectors", i, "row")
            message, label = f"row {vector.row} is out of range", f"0 to {LARGEST_ROW}"
            notes = path_notes(document, path)
            yield IntervError("E207", message, document.span(*path), label, notes=notes)
        if vector.row is not None and vector.rows is not None:
            path = ("vectors", i, "rows")
            yield IntervError(
                "E238",
                "'row' takes one direction, which 'rows' cannot number",
                document.span(*path),
                "numbers a bank",
                notes=path_notes(document, path),
                helps=("leave one of them out",),
            )
