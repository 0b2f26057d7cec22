"""What `interv captures` prints of records: tables with rich, and facts as lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from interv.captures.query import Captures, Piece
from interv.captures.scan import stored_bytes
from interv.captures.visible import visible
from interv.document.wording import layer_text
from interv.sinks.reading import CaptureFile
from interv.sinks.schema import PartLabels, RecordLabels

if TYPE_CHECKING:
    from rich.table import Table

# Rows are read a block at a time, so that a large part takes little memory.
BLOCK_BYTES = 64 * 1024 * 1024


def requests_table(records: Iterable[RecordLabels], *, ascii_only: bool) -> Table:
    """Return a line for each record: what was captured where, and how the request ended."""
    from rich.text import Text

    table = _table(
        "request",
        "sample",
        "tag",
        "program",
        "statement",
        "places",
        "rows",
        "bytes",
        "ended",
        ascii_only=ascii_only,
    )
    for one in records:
        size = sum(stored_bytes(part) for part in one.parts)
        places, rows = places_text(one.parts), str(one.rows)
        named = [one.request, str(one.sample), one.tag, one.program, one.statement]
        cells = [*map(visible, named), places, rows, bytes_text(size), one.ended]
        table.add_row(*map(Text, cells))
    return table


def facts(record: RecordLabels) -> Iterator[tuple[str, str]]:
    """Yield the labels of a record that are the same for all of its rows."""
    generated = record.tokens - record.prompt_tokens
    yield "request", f"{record.request}, sample {record.sample}"
    if record.tag:
        yield "tag", record.tag
    yield "statement", f"{record.statement}, program {record.program}"
    yield "digest", record.digest
    yield "model", record.model
    yield "tokens", f"{record.prompt_tokens} prompt, {generated} generated, {record.ended}"


def places_table(pieces: Sequence[Piece], *, ascii_only: bool) -> Table:
    """Return a line for each place of a record: its rows, their norms, form and error.

    Raises E273 for a file that is damaged.
    """
    from rich.text import Text

    bar = "|" if ascii_only else "‖"
    table = _table(
        "place",
        "rows",
        "positions",
        "dtype",
        f"mean {bar}row{bar}",
        f"largest {bar}row{bar}",
        "form",
        "error",
        ascii_only=ascii_only,
    )
    for piece in pieces:
        with CaptureFile(piece.path) as file:
            part = piece.part
            mean, largest = _norms(file, part)
            runs = runs_text(file.position(part).tolist())
        form = f"rank {part.rank}" if part.form == "low_rank" else part.form
        error = f"{part.error:.2g}" if part.form != "whole" else part.why
        norms = (f"{mean:.4g}", f"{largest:.4g}")
        cells = [part.name, str(part.shape[0]), runs, part.dtype, *norms, form, visible(error)]
        table.add_row(*map(Text, cells))
    return table


def by_record(captures: Captures) -> list[list[Piece]]:
    """Return the pieces of each record, in the order of `captures.records`."""
    found: dict[tuple[object, int], list[Piece]] = {}
    for piece in captures.pieces:
        found.setdefault((piece.path, piece.index[0]), []).append(piece)
    return list(found.values())


def places_text(parts: Iterable[PartLabels]) -> str:
    """Return places in the language's notation: `post_block[12, 20], pre_attn[0] after`."""
    layers: dict[tuple[str, bool], list[int]] = {}
    for part in parts:
        layers.setdefault((part.site, part.after), []).append(part.layer)
    return ", ".join(
        f"{site}[{layer_text(found)}]{' after' if after else ''}"
        for (site, after), found in layers.items()
    )


def runs_text(positions: Sequence[int], most: int = 4) -> str:
    """Return positions as runs: `0..16, 20, 31..40`, both ends included, and how many more."""
    runs: list[list[int]] = []
    for one in positions:
        if runs and runs[-1][1] + 1 == one:
            runs[-1][1] = one
        else:
            runs.append([one, one])
    shown = [str(a) if a == b else f"{a}..{b}" for a, b in runs[:most]]
    return ", ".join(shown) + (f" and {len(runs) - most} more runs" if len(runs) > most else "")


def bytes_text(count: float) -> str:
    """Return bytes as people read them: `512 B`, `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _norms(file: CaptureFile, part: PartLabels) -> tuple[float, float]:
    count, width = part.shape
    block = max(1, BLOCK_BYTES // (8 * max(1, width)))
    total, largest = 0.0, 0.0
    for start in range(0, count, block):
        norms = file.rows(part, start, min(count, start + block)).double().norm(dim=1)
        total += float(norms.sum())
        largest = max(largest, float(norms.max()))
    return (total / count if count else math.nan), largest


def _table(*names: str, ascii_only: bool) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.ASCII if ascii_only else box.SIMPLE, pad_edge=False)
    for name in names:
        right = name in ("sample", "rows", "bytes")
        # An id that is cut short could not be given to another command.
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    return table
