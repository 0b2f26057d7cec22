"""`interv check`: say what is wrong with documents, all of it, without loading torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from interv.errors import IntervError, by_place, each
from interv.wording import counted

if TYPE_CHECKING:
    from interv.document import Document

STDIN = "-"


def check(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Documents; - reads standard input.")
    ],
) -> None:
    """Check documents: syntax, names, numbers, selectors and the vector files they name.

    Example: interv check examples/*.interv

    Exit code 0: all fine. 1: errors, printed to standard error. 2: wrong use.
    """
    errors = 0
    broken = 0
    for name in files:
        found = list(_faults(name))
        errors += len(found)
        broken += bool(found)
        for error in found:
            typer.echo(f"{error}\n", err=True)
    if errors:
        typer.echo(f"{counted(errors, 'error')} in {counted(broken, 'file')}", err=True)
        raise typer.Exit(1)


def _faults(name: str) -> Iterator[IntervError]:
    """Yield every fault of one file, in source order; print a line if there is none."""
    try:
        document = _load(name)
    except IntervError as error:
        yield from each(error)
        return
    faults = sorted(_beyond_text(document), key=by_place)
    yield from faults
    if not faults:
        spec = document.spec
        parts = f"{counted(len(spec.programs), 'program')}, {counted(len(spec.vectors), 'vector')}"
        typer.echo(f"{document.name}: fine ({parts})")


def _load(name: str) -> Document:
    from interv.load import load_document, load_text

    if name == STDIN:
        return load_text(sys.stdin.read(), "<stdin>")
    return load_document(name)


def _beyond_text(document: Document) -> Iterator[IntervError]:
    from interv.load import refuse_unsupported

    try:
        refuse_unsupported(document)
    except IntervError as error:
        yield from each(error)
    for i in range(len(document.spec.vectors)):
        yield from _vector_faults(document, i)


def _vector_faults(document: Document, i: int) -> Iterator[IntervError]:
    from interv.vectors import load_vector

    vector = document.spec.vectors[i]
    path = document.root / vector.path
    if path.suffix == ".pt" and path.is_file():
        return  # reading it takes torch; `interv compile` does
    try:
        load_vector(vector, document.root, document.span("vectors", i, "path"))
    except IntervError as error:
        yield from each(error)
