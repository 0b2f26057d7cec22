"""`interv vectors`: look into vector files and adapters, and convert between vectors' formats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import numpy as np
import typer

from interv.document.wording import layer_text
from interv.errors import IntervError
from interv.terminal import terminal

if TYPE_CHECKING:
    from rich.table import Table

    from interv.vectors import Adapter, Directions

app = typer.Typer(
    no_args_is_help=True, help="Look into vector files and adapters, and convert vectors."
)
BAR_WIDTH = 30
MOST_SHOWN = 200  # characters of a fact
MOST = 1e9  # of a score that is shown
SCORES = {"accuracy": ".0%", "separation": ".2f"}

Key = Annotated[str | None, typer.Option(help="Take this tensor alone.")]
ROWS = "Say what rows are numbered by: blocks, or hidden_states."


class Numbered(StrEnum):
    """What the rows of a bank are numbered by."""

    blocks = "blocks"
    hidden_states = "hidden_states"


@app.command()
def show(
    file: Annotated[
        Path,
        typer.Argument(help="A file of vectors or of an adapter, or a pyreft folder."),
    ],
    key: Key = None,
    row: Annotated[
        int | None, typer.Option(min=0, help="Take this row of the tensor alone.")
    ] = None,
    rows: Annotated[Numbered | None, typer.Option(help=ROWS)] = None,
) -> None:
    """Show the directions in a file: layers, norms, width, format and digest.

    Of an adapter also its kind, its rank and the site it is for.

    Example: interv vectors show examples/vectors/joy.gguf
    """
    from interv.vectors import is_adapter, read_adapter, read_vectors
    from interv.vectors.pyreft import units_in

    console = terminal()
    # Bars and norms have signs that not every output can show.
    ascii_only = console.options.ascii_only
    try:
        if key is None and row is None and rows is None and is_adapter(file):
            adapters = [read_adapter(one) for one in units_in(file)]
            shown = [(_adapter_facts(one), _adapter_table(one, ascii_only)) for one in adapters]
        else:
            vectors = read_vectors(file, key, row, rows.value if rows else None)
            shown = [(_facts(vectors), _table(vectors, ascii_only))]
    except IntervError as error:
        _fail(error)
    for facts, table in shown:
        for name, value in facts:
            console.print(f"{name:<7} {value}", soft_wrap=True)
        console.print(table)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="The file to read.")],
    target: Annotated[Path, typer.Argument(help="The file to write; its suffix is the format.")],
    key: Key = None,
    hidden: Annotated[
        bool,
        typer.Option(
            "--from-hidden-states",
            help="SOURCE is numbered by hidden_states: i + 1 is the output of block i.",
        ),
    ] = False,
    blocks: Annotated[
        bool,
        typer.Option("--from-blocks", help="Row i of SOURCE is the output of block i."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace TARGET if it exists.")] = False,
    drop: Annotated[
        bool, typer.Option("--drop", help="Leave out what TARGET's format cannot hold.")
    ] = False,
) -> None:
    """Write the directions of SOURCE to TARGET, as .safetensors, .gguf or .pt.

    Example: interv vectors convert joy.gguf joy.safetensors
    """
    from interv.vectors import is_adapter, read_vectors, save_vectors

    try:
        if target.exists() and not force:
            raise IntervError("E231", f"'{target}' exists already", helps=("--force replaces it",))
        if key is None and is_adapter(source):
            raise IntervError("E230", f"'{source}' is an adapter; only directions are converted")
        vectors = read_vectors(source, key, rows=_numbering(hidden, blocks))
        _check_numbered(vectors)
        bank = _kept(vectors, target, drop)
        save_vectors(target, bank, vectors.hint, vectors.facts)
    except IntervError as error:
        _fail(error)
    for note in (*vectors.notes, *vectors.reading):
        typer.echo(f"note: {note}", err=True)
    if vectors.facts and target.suffix == ".pt":
        typer.echo("left out: how the directions were made, which .pt has no place for", err=True)
    typer.echo(f"{target}: {_extent(read_vectors(target))}")


def _numbering(hidden: bool, blocks: bool) -> Literal["blocks", "hidden_states"] | None:
    if hidden and blocks:
        raise IntervError("E252", "'--from-hidden-states' and '--from-blocks' exclude each other")
    return "hidden_states" if hidden else "blocks" if blocks else None


def _check_numbered(vectors: Directions) -> None:
    """Raise E238 for rows that would get the names of layers without anyone having said so."""
    if vectors.rows is None or vectors.numbering:
        return
    raise IntervError(
        "E238",
        f"'{vectors.path.name}' holds {vectors.rows} rows, and does not say what they are",
        notes=(
            "by hidden_states of Transformers, row 0 is the embedding, row i + 1 the output of "
            "block i; such a bank has one row more than the model has blocks",
        ),
        helps=("--from-hidden-states if that is so, --from-blocks if row i is of block i",),
    )


def _kept(vectors: Directions, target: Path, drop: bool) -> Directions | Mapping[int, np.ndarray]:
    """Return what `target` can hold, and say what is left out; raise E230 unless that is wanted."""
    if vectors.rounded and not drop:
        raise IntervError(
            "E230",
            f"'{target.name}' cannot hold all digits of '{vectors.path.name}'",
            notes=("directions are float32; the source has values between its steps",),
            helps=("round them (--drop)",),
        )
    if vectors.rounded:
        typer.echo("left out: the digits beyond float32", err=True)
    if not drop or target.suffix != ".gguf" or 0 not in vectors.by_layer:
        return vectors
    typer.echo("left out: layer 0, which a GGUF control vector cannot hold", err=True)
    return {layer: vectors.at(layer) for layer in vectors.by_layer if layer}


def _facts(vectors: Directions) -> list[tuple[str, str]]:
    facts = [
        ("file", str(vectors.path)),
        ("format", vectors.format),
        ("holds", _extent(vectors)),
        ("digest", f"sha256:{vectors.digest}"),
    ]
    if vectors.hint:
        facts.insert(2, ("model", vectors.hint))
    if vectors.source:
        facts.insert(2, ("source", vectors.source))
    if vectors.origin:
        facts.insert(2, ("likely", f"{vectors.origin.tool}: {vectors.origin.why}"))
    facts += [("made", f"{name}: {text}") for name, text in _made(vectors.facts)]
    if vectors.rounded:
        facts.append(("note", "values are rounded to float32"))
    if vectors.rows is not None and vectors.numbering != "hidden_states":
        facts.append(("note", f"row i of one tensor [{vectors.rows}, H] is layer i"))
    return facts + [("note", note) for note in (*vectors.notes, *vectors.reading)]


def _made(facts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what a file says of how it was made; scores are for the table."""
    shown = {name: text for name, text in facts.items() if name not in ("scores", "tool")}
    # A file's own words: no sign of them shall move the cursor, and none fill the screen.
    return [(name, _tame(text)) for name, text in shown.items() if name.isidentifier()]


def _tame(text: str) -> str:
    cut = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
    return "".join(sign if sign.isprintable() else " " for sign in cut)


def _scores(facts: Mapping[str, str]) -> dict[int, Mapping[str, object]]:
    """Return the scores of each layer, where a file holds some that can be read."""
    try:
        listed = json.loads(facts.get("scores", "[]"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(listed, list):
        return {}
    scores = (one for one in listed if isinstance(one, dict))
    return {one["layer"]: one for one in scores if isinstance(one.get("layer"), int)}


def _extent(vectors: Directions) -> str:
    if vectors.layers is None:
        return f"one direction for every layer, width {vectors.width}"
    return f"layers {layer_text(vectors.layers)}, width {vectors.width}"


def _table(vectors: Directions, ascii_only: bool) -> Table:
    """Return the norm of each direction, and a bar as long as it is beside the largest.

    Where the file holds scores of its layers, they follow.
    """
    from rich import box
    from rich.table import Table

    scores = _scores(vectors.facts)
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("layer", justify="right")
    table.add_column("norm", justify="right")
    table.add_column("", style="cyan")
    for name in SCORES if scores else ():
        table.add_column(name, justify="right")
    bank = vectors.by_layer if vectors.single is None else {-1: vectors.single}
    norms = {i: float(np.linalg.norm(v.astype(np.float64))) for i, v in bank.items()}
    top = max(norms.values())
    for layer, norm in norms.items():
        bar = ("=" if ascii_only else "━") * max(1, round(BAR_WIDTH * norm / top))
        own = scores.get(layer, {})
        numbers = [_number(own.get(name), form) for name, form in SCORES.items() if scores]
        table.add_row("*" if layer < 0 else str(layer), f"{norm:.4g}", bar, *numbers)
    return table


def _number(value: object, form: str) -> str:
    fits = isinstance(value, int | float) and abs(value) < MOST
    return format(value, form) if fits else "–"


def _adapter_facts(adapter: Adapter) -> list[tuple[str, str]]:
    layers = adapter.layers
    extent = "one update for every layer" if layers is None else f"layers {layer_text(layers)}"
    rank = "linear map" if adapter.rank is None else f"low rank {adapter.rank}"
    return [
        ("file", str(adapter.path)),
        ("format", adapter.format),
        ("kind", rank),
        ("holds", f"{extent}, width {adapter.width}"),
        ("site", adapter.site or "any"),
        ("digest", f"sha256:{adapter.digest}"),
        *(("note", note) for note in adapter.notes),
    ]


def _adapter_table(adapter: Adapter, ascii_only: bool) -> Table:
    """Return the Frobenius norms of what the update of each layer reads, adds and writes."""
    from rich import box
    from rich.table import Table

    names = ("weight", "bias") if adapter.rank is None else ("read", "bias", "write")
    table = Table(box=box.SIMPLE, pad_edge=False)
    bar = "|" if ascii_only else "‖"
    for name in ("layer", *(f"{bar}{name}{bar}" for name in names)):
        table.add_column(name, justify="right")
    for layer in adapter.layers or (0,):
        update = adapter.at(layer)
        norms = (f"{float(np.linalg.norm(getattr(update, name))):.4g}" for name in names)
        table.add_row("*" if adapter.layers is None else str(layer), *norms)
    return table


def _fail(error: IntervError) -> NoReturn:
    typer.echo(str(error), err=True)
    raise typer.Exit(1) from None
