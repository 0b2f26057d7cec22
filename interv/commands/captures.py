"""`interv captures`: find, inspect, load and plot the rows that captures have written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interv.document.wording import counted
from interv.errors import IntervError, each, raise_all
from interv.terminal import terminal

if TYPE_CHECKING:
    from interv.captures.projection import Projection
    from interv.captures.scan import Folder
    from interv.sinks.schema import RecordLabels

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Find, inspect, load and plot captured rows.

A document says what is captured, and which folder it goes to:

\b
    sink acts = filesystem("acts/")
    program look { capture at post_block[12, 20] to acts }

What is there afterwards:

\b
    interv captures ls acts/
    interv captures show acts/ REQUEST
    interv captures load acts/ --layer 12 -o rows.safetensors
    interv captures plot acts/ --request REQUEST --layer 12 --vector joy.gguf -o joy.png
""",
)
POSITIONS = re.compile(r"(\d{1,18})|(\d{0,18}):(\d{0,18})", re.ASCII)

FolderArgument = Annotated[Path, typer.Argument(help="The folder that a filesystem sink wrote.")]
Request = Annotated[str | None, typer.Option(help="The request's id.")]
Sample = Annotated[int | None, typer.Option(help="Which of the request's samples.")]
Site = Annotated[str | None, typer.Option(help="pre_attn, post_attn or post_block.")]
After = Annotated[
    bool | None, typer.Option("--after/--before", help="The stream after, or before, the edits.")
]
Position = Annotated[
    str | None, typer.Option(help="Absolute positions: 7, 0:16, 16: or :16 (half-open).")
]


@app.command()
def ls(folder: FolderArgument) -> None:
    """List the captured requests of a folder, and what is not complete there.

    Rows are counted over all places. Bytes are those of the rows as they are stored.

    Exit code 0: listed. 1: the folder cannot be read, or its manifest is not true.

    Example: interv captures ls acts/
    """
    from interv.captures.scan import scan
    from interv.captures.tables import requests_table

    with _told():
        found = scan(folder)
        records, errors = _records(found)
        console = terminal()
        console.print(requests_table(records, ascii_only=console.options.ascii_only))
        rows = counted(sum(record.rows for record in records), "row")
        console.print(
            f"{rows} of {counted(len(records), 'record')} in {counted(len(found.files), 'file')}",
        )
        _notes(found.incomplete)
        raise_all([*found.errors, *errors])


@app.command()
def show(
    folder: FolderArgument,
    request: Annotated[str, typer.Argument(help="The request's id, as `ls` shows it.")],
) -> None:
    """Show the labels of a request's records, and the norms of its rows at each place.

    `error` is what compression did: the relative Frobenius error of the rows that are read back.

    Example: interv captures show acts/ cmpl-42
    """
    from interv.captures import load_captures
    from interv.captures.tables import by_record, facts, places_table
    from interv.captures.visible import visible

    with _told():
        captures = load_captures(folder, request=request)
        console = terminal()
        for pieces in by_record(captures):
            table = places_table(pieces, ascii_only=console.options.ascii_only)
            for name, value in facts(pieces[0].record):
                line = f"{name:<9} {visible(value)}"
                console.print(line, soft_wrap=True)
            console.print(table)
        _notes(captures.incomplete)


@app.command()
def load(
    folder: FolderArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="NAME.safetensors or NAME.npz.")],
    request: Request = None,
    sample: Sample = None,
    tag: Annotated[str | None, typer.Option(help="What requests said of themselves.")] = None,
    program: Annotated[str | None, typer.Option(help="The program whose capture it is.")] = None,
    site: Site = None,
    layer: Annotated[
        list[int] | None, typer.Option(help="A layer; may be given more than once.")
    ] = None,
    after: After = None,
    position: Position = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUTPUT if it exists.")] = False,
) -> None:
    """Write chosen rows as one tensor `rows` [N, H], with their labels as columns beside it.

    In Python the same is `interv.load_captures("acts", layer=12).rows`.

    \b
    Examples:
      interv captures load acts/ --layer 12 --layer 20 -o rows.safetensors
      interv captures load acts/ --request cmpl-42 --position 0:16 -o start.npz
    """
    from interv.captures import load_captures
    from interv.captures.export import export

    with _told():
        if output.exists() and not force:
            raise IntervError("E231", f"'{output}' exists already", helps=("--force replaces it",))
        captures = load_captures(
            folder,
            request=request,
            sample=sample,
            tag=tag,
            program=program,
            site=site,
            layer=layer or None,
            after=after,
            position=_positions(position),
        )
        export(captures, output)
        width = captures.rows.shape[1]
        typer.echo(f"{output}: {counted(len(captures), 'row')} of width {width}")
        _notes(captures.incomplete)


@app.command()
def plot(
    folder: FolderArgument,
    vector: Annotated[
        str, typer.Option(help="The direction: a vector file, or FILE:KEY for one tensor of it.")
    ],
    request: Request = None,
    sample: Sample = None,
    site: Site = None,
    layer: Annotated[int | None, typer.Option(help="The layer of the rows.")] = None,
    after: After = None,
    position: Position = None,
    model: Annotated[
        Path | None, typer.Option(help="The model's folder, whose tokenizer.json gives the text.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also draw a picture: NAME.png.")
    ] = None,
) -> None:
    """Show the projection of captured rows on a direction, token by token over the text.

    The value of a token is h·v/‖v‖: how far its row lies along the direction, in the stream's own
    units. Where the folder has one request, or one layer, it need not be named.

    Example: interv captures plot acts/ --request cmpl-42 --layer 15 --vector joy.gguf -o joy.png
    """
    from interv.captures import load_captures
    from interv.captures.projection import project
    from interv.vectors import read_vectors

    with _told():
        captures = load_captures(
            folder,
            request=request,
            sample=sample,
            site=site,
            layer=layer,
            after=after,
            position=_positions(position),
        )
        projection = project(captures, read_vectors(*_file_and_key(vector)), model)
        _print_bars(projection)
        if model is None:
            typer.echo("note: tokens are shown by their ids; --model gives their text", err=True)
        if output is not None:
            from interv.captures.plot import save_plot

            save_plot(projection, output)
            typer.echo(f"{output}: {counted(len(projection.value), 'token')}")
        _notes(captures.incomplete)


@contextmanager
def _told() -> Iterator[None]:
    """Print errors and end with exit code 1."""
    try:
        yield
    except IntervError as error:
        for one in each(error):
            typer.echo(str(one), err=True)
        raise typer.Exit(1) from None


def _records(folder: Folder) -> tuple[list[RecordLabels], list[IntervError]]:
    """Return the labels of all records, and what is wrong with the files that have none."""
    records: list[RecordLabels] = []
    errors: list[IntervError] = []
    for file in folder.files:
        try:
            records += file.records()
        except IntervError as error:
            errors.append(error)
    return records, errors


def _print_bars(projection: Projection) -> None:
    from interv.captures.bars import bars

    console = terminal()
    ascii_only = console.options.ascii_only
    console.print(projection.title, soft_wrap=True)
    for line in bars(projection, ascii_only=ascii_only):
        console.print(line, soft_wrap=True)


def _positions(text: str | None) -> int | slice | None:
    if text is None:
        return None
    found = POSITIONS.fullmatch(text)
    if found is None:
        notes = ("positions are a number or a half-open range: 7, 0:16, 16:, :16",)
        raise IntervError("E276", f"'{text}' is not a position", notes=notes)
    if found[1]:
        return int(found[1])
    return slice(int(found[2] or 0), int(found[3]) if found[3] else None)


def _file_and_key(text: str) -> tuple[Path, str | None]:
    """Split `FILE:KEY`, unless a file has that whole name."""
    name, _, key = text.rpartition(":")
    if not name or Path(text).exists():
        return Path(text), None
    return Path(name), key


def _notes(notes: Sequence[str]) -> None:
    for note in notes:
        typer.echo(f"note: {note}", err=True)
