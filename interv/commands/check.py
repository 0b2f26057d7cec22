"""`interv check`: say what is wrong with documents, all of it, without loading torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interv.document.wording import counted
from interv.errors import IntervError, by_place, each, shown_errors

if TYPE_CHECKING:
    from interv.document.document import Document

STDIN = "-"
# Nothing is wrong as far as was looked, and something was not looked at.
NOT_LOOKED_AT = 3


def check(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Documents; - reads standard input.")
    ],
) -> None:
    """Check documents: syntax, names, numbers, selectors, vector files and adapters.

    Example: interv check examples/*.interv

    Exit code 0: all is looked at, and fine. 1: errors, printed to standard error. 2: wrong use.
    3: no error, but a file was not opened, because only torch can read it; it says which.
    """
    checked = [_check(name) for name in files]
    errors = [len(one.errors) for one in checked if one.errors]
    if errors:
        said = f"{counted(sum(errors), 'error')} in {counted(len(errors), 'file')}"
        typer.echo(said, err=True)
        raise typer.Exit(1)
    if any(one.unopened for one in checked):
        raise typer.Exit(NOT_LOOKED_AT)


@dataclass(slots=True)
class _Checked:
    """What was found in one file, and what was not looked at."""

    errors: list[IntervError] = field(default_factory=list)
    unopened: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what of a file was taken for what


def _check(name: str) -> _Checked:
    """Check one file and print what was found, errors in source order."""
    checked = _Checked()
    try:
        document = _load(name)
    except IntervError as error:
        checked.errors = list(each(error))
    else:
        checked.errors = sorted(_beyond_text(document, checked), key=by_place)
    for text in shown_errors(checked.errors):
        typer.echo(f"{text}\n", err=True)
    for text in checked.unopened:
        typer.echo(f"{name}: {text}", err=True)
    if not checked.errors:
        for text in checked.notes:
            typer.echo(f"{name}: note: {text}", err=True)
        typer.echo(_fine(document, checked.unopened))
    return checked


def _fine(document: Document, unopened: list[str]) -> str:
    spec = document.spec
    parts = [counted(len(spec.programs), "program"), counted(len(spec.vectors), "vector")]
    if spec.adapters:
        parts.append(counted(len(spec.adapters), "adapter"))
    said = f"fine but for {counted(len(unopened), 'file')} not opened" if unopened else "fine"
    return f"{document.name}: {said} ({', '.join(parts)})"


def _load(name: str) -> Document:
    from interv.load import load_document, load_text

    if name == STDIN:
        return load_text(sys.stdin.read(), "<stdin>")
    return load_document(name)


def _beyond_text(document: Document, checked: _Checked) -> Iterator[IntervError]:
    from interv.load import refuse_unsupported
    from interv.vectors import load_adapter, load_vector

    try:
        refuse_unsupported(document)
    except IntervError as error:
        yield from each(error)
    kinds: list[tuple[str, Callable[..., Any]]] = [
        ("vector", load_vector),
        ("adapter", load_adapter),
    ]
    for noun, load in kinds:
        for i, decl in enumerate(getattr(document.spec, f"{noun}s")):
            yield from _file_faults(document, noun, i, decl, load, checked)


def _file_faults(
    document: Document,
    noun: str,
    i: int,
    decl: Any,
    load: Callable[..., Any],
    checked: _Checked,
) -> Iterator[IntervError]:
    from interv.vectors.raw import NeedsTorch

    span = document.span(f"{noun}s", i, "path")
    try:
        loaded = load(decl, document.root, span, light=True)
        notes = getattr(loaded, "reading", ())
        checked.notes += [f"{noun} '{decl.name}': {note}" for note in notes]
    except IntervError as error:
        yield from each(error)
    except NeedsTorch as reason:
        checked.unopened.append(
            f"{noun} '{decl.name}': '{decl.path}' not opened: {reason};"
            " torch may read it, and interv compile asks it"
        )
