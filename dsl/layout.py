"""Lay lines out in columns: the one place that decides how a document looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from interv.dsl.clauses import CLAUSES

INDENT = "  "
WIDTH = 100
# A longer cell keeps its line to itself rather than push its neighbours' columns out.
WIDEST_CELL = 40
# What stands right behind the name of a statement's vector.
NAMES = ("by", "towards")
AMOUNTS = ("scale", "in", "strength", "decay", "tokens")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a document: cells that align with those of its neighbours of the same kind."""

    cells: tuple[str, ...]
    kind: str  # "edit" and "declaration" align, "plain" does not
    depth: int = 0
    comment: str = ""
    blank_before: bool = False


def statement_cells(op: str, target: str, clauses: Mapping[str, str]) -> tuple[str, ...]:
    """Arrange a statement in five columns: op, target, place, amount, the rest."""
    order = [word for word in CLAUSES[op] if word in clauses]
    # What a steer keeps says how much it changes; what a capture keeps, and where it goes, do not.
    amounts = AMOUNTS if op == "capture" else (*AMOUNTS, "keep", "to", "adaptive")
    amount = " ".join(clauses[word] for word in order if word in amounts)
    rest = " ".join(clauses[word] for word in order if word not in (*amounts, "at", *NAMES))
    named = " ".join([target, *(clauses[word] for word in NAMES if word in clauses)])
    return (op, named, clauses.get("at", ""), amount, rest)


def block(head: str, options: Sequence[str]) -> str | None:
    """Print a block of options on one line, or None where it is too wide."""
    text = f"{head} {{ {'  '.join(options)} }}" if options else f"{head} {{ }}"
    return text if len(text) <= WIDTH else None


def lay_out(lines: Iterable[Line]) -> str:
    """Print lines: columns align within a group, which a blank line ends."""
    out: list[str] = []
    for group in _groups(list(lines)):
        out += _columns(group)
    return "".join(f"{text}\n" for text in out)


def _groups(lines: list[Line]) -> list[list[Line]]:
    groups: list[list[Line]] = []
    for line in lines:
        if not groups or line.blank_before or line.depth != groups[-1][-1].depth:
            groups.append([])
        groups[-1].append(line)
    return groups


def _columns(group: list[Line]) -> list[str]:
    widths = {
        kind: _widths([line.cells for line in lines])
        for kind, lines in _by_kind(group).items()
        if kind != "plain" and len(lines) > 1
    }
    texts = [_join(line, widths.get(line.kind, ())) for line in group]
    commented = [len(text) for text, line in zip(texts, group, strict=True) if _trails(line)]
    column = max(commented, default=0) + 3
    out = []
    for text, line in zip(texts, group, strict=True):
        if line.blank_before:
            out.append("")
        padded = text.ljust(column) if _trails(line) else text
        indent = INDENT * line.depth
        out.append(f"{indent}{padded}{line.comment}".rstrip())
    return out


def _trails(line: Line) -> bool:
    return bool(line.comment and line.cells)


def _by_kind(group: list[Line]) -> dict[str, list[Line]]:
    ordered = sorted((line for line in group if line.cells), key=lambda line: line.kind)
    return {kind: list(lines) for kind, lines in groupby(ordered, key=lambda line: line.kind)}


def _widths(rows: list[tuple[str, ...]]) -> tuple[int, ...]:
    columns = zip(*rows, strict=True)
    return tuple(
        max((len(cell) for cell in column if len(cell) <= WIDEST_CELL), default=0)
        for column in columns
    )


def _join(line: Line, widths: tuple[int, ...]) -> str:
    if not widths:
        return " ".join(cell for cell in line.cells if cell)
    gaps = [" ", *["  "] * len(line.cells)] if line.kind == "edit" else [" "] * len(line.cells)
    text = ""
    for cell, width, gap in zip(line.cells, widths, gaps, strict=False):
        text += cell.ljust(width) + gap if width or cell else ""
    return text.rstrip()
