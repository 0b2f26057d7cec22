"""`interv import`: a document from the spec of another system."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interv.document.wording import counted
from interv.errors import IntervError, each

if TYPE_CHECKING:
    from interv.importers import Imported, Options


def import_(
    file: Annotated[
        Path,
        typer.Argument(help="A .json file, a file of vectors or adapters, a folder of pyreft."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The document: NAME.interv.")],
    format_: Annotated[
        str | None, typer.Option("--format", help="What FILE is, where its fields do not tell.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The program's name.")] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Where paths in FILE start, and stay; without it FILE's folder."),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(help="How the model is built, for RhizoNymph's pre_attn and post_attn: llama"),
    ] = None,
    positions: Annotated[str | None, typer.Option(help="Of a pyreft folder: f7+l7.")] = None,
    allow_inexact: Annotated[
        bool,
        typer.Option("--allow-inexact", help="Note what has no exact equal instead of refusing."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Write a document that does what a spec of another system says.

    \b
    EasySteer request, version 0 (easysteer-v0):
      {"steer_vector_name": "calm", "steer_vector_id": 1, "steer_vector_local_path": "calm.gguf",
       "scale": 2, "target_layers": [10, 11], "generate_trigger_tokens": [-1]}
      interv import request.json -o calm.interv
    EasySteer spec, version 2 (easysteer-v2):
      {"vectors": [{"source": "calm.gguf", "scale": 2, "apply": {"generation": "all"}}]}
      interv import steering.json -o calm.interv --root /vectors
    chatspace spec or bundle, also as .pt and .pkl (chatspace, chatspace-bundle):
      {"layers": {"14": {"operations": [{"type": "projection_cap", "vector": [0.1], "max": 2}]}}}
      interv import spec.json -o caps.interv
    File of vectors, as repeng, CAA, steering-vectors, persona_vectors and others save (vectors):
      interv import joy.gguf -o joy.interv
    RhizoNymph module (rhizonymph):
      {"decode_vectors": {"post_attn": {"14": {"vector": [0.1], "scale": 2}}}}
      interv import module.json -o calm.interv --family llama
    pyreft folder (pyreft):
      interv import style-reft -o style.interv --positions f7+l7

    Arrays inside FILE go to NAME.vectors/ beside the document, as safetensors. Files that it names
    are used where they are, and read only under --root. What has no exact equal is an error with
    the reason; with --allow-inexact it becomes a comment in the document and a warning.

    Exit code 0: written. 1: errors, printed to standard error. 2: wrong use.
    """
    from interv.importers import Options

    options = Options(root or file.parent, name, family, allow_inexact, positions)
    _report(_imported(file, output, options, format_, force=force))


def _imported(
    file: Path, output: Path, options: Options, format_: str | None, *, force: bool
) -> Imported:
    from interv.importers import import_file, write_import

    try:
        imported = import_file(file, output, options, format_)
        write_import(imported, force=force)
    except IntervError as error:
        for one in each(error):
            typer.echo(f"{one}\n", err=True)
        raise typer.Exit(1) from None
    return imported


def _report(imported: Imported) -> None:
    for remark in imported.remarks:
        typer.echo(f"note: {remark}", err=True)
    for remark in imported.inexact:
        typer.echo(f"warning: not exact: {remark}", err=True)
    spec = imported.spec
    parts = [counted(len(spec.programs), "program"), counted(len(imported.files), "vector file")]
    typer.echo(f"{imported.target}: {', '.join(parts)} from {imported.format}")
