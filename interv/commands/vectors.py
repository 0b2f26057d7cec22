"""`interv vectors`: look into vector files and convert between their formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import numpy as np
import typer

from interv.errors import IntervError
from interv.wording import layer_text

if TYPE_CHECKING:
    from rich.table import Table

    from interv.vectors import Directions

app = typer.Typer(no_args_is_help=True, help="Look into vector files, and convert them.")
BAR_WIDTH = 30

Key = Annotated[str | None, typer.Option(help="Take this tensor alone.")]


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A .safetensors, .gguf or .pt file.")],
    key: Key = None,
) -> None:
    """Show the directions in a file: layers, norms, width, format and digest.

    Example: interv vectors show examples/vectors/joy.gguf
    """
    from rich.console import Console

    from interv.vectors import read_vectors

    try:
        vectors = read_vectors(file, key)
    except IntervError as error:
        _fail(error)
    console = Console()
    for name, value in _facts(vectors):
        console.print(f"{name:<7} {value}", highlight=False, markup=False, soft_wrap=True)
    console.print(_table(vectors))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="The file to read.")],
    target: Annotated[Path, typer.Argument(help="The file to write; its suffix is the format.")],
    key: Key = None,
    force: Annotated[bool, typer.Option("--force", help="Replace TARGET if it exists.")] = False,
    drop: Annotated[
        bool, typer.Option("--drop", help="Leave out what TARGET's format cannot hold.")
    ] = False,
) -> None:
    """Write the directions of SOURCE to TARGET, as .safetensors or .gguf.

    Example: interv vectors convert joy.gguf joy.safetensors
    """
    from interv.vectors import read_vectors, save_vectors

    try:
        if target.exists() and not force:
            raise IntervError("E231", f"'{target}' exists already", helps=("--force replaces it",))
        vectors = read_vectors(source, key)
        bank: Directions | Mapping[int, np.ndarray] = vectors
        if drop and target.suffix == ".gguf" and vectors.has(0) and vectors.single is None:
            bank = {layer: vectors.at(layer) for layer in vectors.by_layer if layer}
            typer.echo("left out: layer 0, which a GGUF control vector cannot hold", err=True)
        save_vectors(target, bank, vectors.hint)
    except IntervError as error:
        _fail(error)
    typer.echo(f"{target}: {_extent(read_vectors(target))}")


def _facts(vectors: Directions) -> list[tuple[str, str]]:
    facts = [
        ("file", str(vectors.path)),
        ("format", vectors.format),
        ("holds", _extent(vectors)),
        ("digest", f"sha256:{vectors.digest}"),
    ]
    if vectors.hint:
        facts.insert(2, ("model", vectors.hint))
    if vectors.rows is not None:
        facts.append(("note", f"row i of one tensor [{vectors.rows}, H] is layer i"))
    return facts + [("note", note) for note in vectors.notes]


def _extent(vectors: Directions) -> str:
    if vectors.layers is None:
        return f"one direction for every layer, width {vectors.width}"
    return f"layers {layer_text(vectors.layers)}, width {vectors.width}"


def _table(vectors: Directions) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("layer", justify="right")
    table.add_column("norm", justify="right")
    table.add_column("")
    bank = vectors.by_layer if vectors.single is None else {-1: vectors.single}
    norms = {i: float(np.linalg.norm(v.astype(np.float64))) for i, v in bank.items()}
    top = max(norms.values())
    for layer, norm in norms.items():
        bar = "━" * max(1, round(BAR_WIDTH * norm / top))
        table.add_row("*" if layer < 0 else str(layer), f"{norm:.4g}", bar)
    return table


def _fail(error: IntervError) -> NoReturn:
    typer.echo(str(error), err=True)
    raise typer.Exit(1) from None
