"""`interv fmt`: put documents into the one canonical layout."""

from __future__ import annotations

import difflib
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from interv.errors import IntervError, each

STDIN = "-"


def fmt(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Documents; - formats standard input to output."),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if a file would change.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Write nothing; print what would change.")
    ] = False,
) -> None:
    """Format documents in place: columns aligned, clauses in one order, comments kept.

    Example: interv fmt --diff calm.interv

    Exit code 0: done. 1: a file cannot be read or, with --check or --diff, would change.
    """
    failed = False
    for name in files:
        try:
            changed = _format(name, write=not (check or diff), diff=diff)
        except IntervError as error:
            for one in each(error):
                typer.echo(f"{one}\n", err=True)
            failed = True
            continue
        failed = failed or (changed and (check or diff))
        if changed and name != STDIN:
            done = "would be formatted" if check or diff else "formatted"
            typer.echo(f"{name}: {done}", err=True)
    if failed:
        raise typer.Exit(1)


def _format(name: str, *, write: bool, diff: bool) -> bool:
    """Format one file; say whether that changes it."""
    from interv.dsl.formatter import format_text
    from interv.files import read_text
    from interv.load import LARGEST_BYTES

    if name == STDIN:
        before = sys.stdin.read()
    elif Path(name).suffix != ".interv":
        raise IntervError("E200", f"'{name}' is not a text document", notes=("suffixes: .interv",))
    else:
        before = read_text(Path(name), LARGEST_BYTES)
    after = format_text(before, "<stdin>" if name == STDIN else name)
    if diff:
        lines = difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True), name, name
        )
        typer.echo("".join(lines), nl=False)
    elif write and name == STDIN:
        typer.echo(after, nl=False)
    elif write and after != before:
        _replace(Path(name).resolve(), after)
    return after != before


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8", newline="\n")
        shutil.copymode(path, fresh)
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        reason = (error.strerror or str(error)).lower()
        raise IntervError("E200", f"'{path}' cannot be written: {reason}") from error
