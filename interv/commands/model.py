"""`interv model`: get the demo's model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def model(
    cache: Annotated[
        Path | None,
        typer.Option(help="Where to keep it; default: INTERV_CACHE, or the user's cache folder."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file again and compare its sha256.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Download and convert SmolLM2-135M-Instruct once, and print its folder.

    Example: vllm serve "$(interv model)" --intervention examples/joy.interv
    """
    from interv.demo.file_list import problems
    from interv.demo.model import SMOLLM2, demo_model_path
    from interv.errors import IntervError

    try:
        folder = demo_model_path(progress=not quiet, cache=cache)
        found = problems(folder, SMOLLM2.key, full=True) if verify else ()
        if found:
            raise IntervError(
                "E543",
                f"the model in '{folder}' is damaged",
                notes=found,
                helps=("remove that folder and run again",),
            )
    except IntervError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; run again to go on from here", err=True)
        raise typer.Exit(130) from None
    typer.echo(folder)
