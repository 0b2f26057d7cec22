"""What `interv doctor` found, row by row, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from interv.terminal import terminal

State = Literal["ok", "warn", "fail"]
MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: what was looked at, how it is, what was found, and what to do about it."""

    what: str
    state: State
    found: str
    help: str = ""


def show(findings: Sequence[Finding], fine: str) -> None:
    """Print the rows as a table, and below it what has failed, or `fine`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("", "part", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for row in findings:
        table.add_row(Text(*MARKS[row.state]), row.what, row.found, row.help)
    terminal().print(table)
    failed = [row.what for row in findings if row.state == "fail"]
    print(f"not working: {', '.join(failed)}" if failed else fine)
