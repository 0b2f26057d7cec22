"""`interv compile`: compile documents for a model, and explain what was done."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from interv.compile import Compilation
    from interv.document import Document


class Stage(StrEnum):
    """Where an explain stops."""

    spec = "spec"
    graph = "graph"
    plan = "plan"
    kernels = "kernels"


class Format(StrEnum):
    """How an explain prints."""

    text = "text"
    json = "json"


def compile_(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Documents; all go into one engine.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A folder with a config.json, that file, or a name on the Hugging Face hub."
            " Weights are not needed.",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what was done, what was not, and why.")
    ] = False,
    stage: Annotated[
        Stage | None, typer.Option("--stage", help="Explain up to this stage only.")
    ] = None,
    only: Annotated[
        str | None, typer.Option("--pass", metavar="NAME", help="Show what one pass changed.")
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="How to print the explain.")
    ] = Format.text,
) -> None:
    """Compile documents for a model, without running it.

    Example: interv compile examples/joy.interv --model examples/models/smollm2-135m --explain

    Without --explain one line says what came out. --stage and --pass explain too. Without
    --model the documents are checked, and the explain says what needs no model.
    """
    from interv.errors import IntervError

    try:
        wanted = explain or stage is not None or form is Format.json
        typer.echo(_answer(files, model, wanted, stage, only, form))
    except IntervError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None


def _answer(
    files: Sequence[Path],
    model: str | None,
    explained: bool,
    stage: Stage | None,
    only: str | None,
    form: Format,
) -> str:
    from interv.load import load_documents

    documents = load_documents(files)
    if model is None and not explained and only is None:
        return _summary_without_model(files)
    from interv.explain import explain, explain_pass, explain_spec

    if model is None:
        _refuse_without_model(stage, only)
        return explain_spec(documents, form.value)
    compilation = _compile(documents, model)
    if only is not None:
        return explain_pass(compilation, only)
    if explained:
        return explain(compilation, stage.value if stage else None, form.value)
    return summary(compilation)


def _compile(documents: Sequence[Document], model: str) -> Compilation:
    from interv.compile import compile_documents
    from interv.model import model_facts

    return compile_documents(documents, model_facts(model))


def _refuse_without_model(stage: Stage | None, only: str | None) -> None:
    from interv.errors import IntervError

    if only is not None or stage not in (None, Stage.spec):
        asked = f"--pass {only}" if only is not None else f"--stage {stage}"
        raise IntervError(
            "E251",
            f"'{asked}' needs a model",
            helps=["add --model with a folder that has a config.json; weights are not needed"],
        )


def _summary_without_model(files: Sequence[Path]) -> str:
    names = ", ".join(str(path) for path in files)
    return f"{names}: fine as far as can be said without --model"


def summary(compilation: Compilation) -> str:
    """Return one line on what a compilation came to."""
    plan, cost = compilation.plan, compilation.plan.cost
    programs = ", ".join(compilation.bundle.programs) or "no program"
    return (
        f"{programs} for {compilation.model.name}: {cost.columns} columns at {len(plan.sites)}"
        f" sites, {cost.launches} launches and {cost.predicted_us:.0f} µs a step (predicted),"
        f" default {compilation.bundle.default or 'off'}"
    )
