"""`interv compile`: compile documents for a model, and explain what was done."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from interv.compile import Compilation
    from interv.document.document import Document
    from interv.measuring.analyze import Load
    from interv.measuring.measurement import Measurement


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
    analyze: Annotated[
        bool,
        typer.Option("--analyze", help="Run the programs on the model in vLLM, and explain."),
    ] = False,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", metavar="TEXT", help="What --analyze asks; default: four prompts."
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", min=2, help="Length of its answers; default: 32."),
    ] = None,
) -> None:
    """Compile documents for a model, without running it unless --analyze is given.

    Example: interv compile examples/joy.interv --model examples/models/smollm2-135m --explain

    Without --explain one line says what came out. --stage, --pass and --analyze explain too.
    Without --model the documents are checked, and the explain says what needs no model. --analyze
    needs the model's weights, and adds to the plan which rows were edited and what a step took.
    """
    from interv.errors import IntervError

    try:
        load = _load(analyze, prompt, tokens, stage, only)
        wanted = explain or analyze or stage is not None or form is Format.json
        typer.echo(_answer(files, model, wanted, stage, only, form, load))
    except IntervError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None


def _load(
    analyze: bool,
    prompts: Sequence[str] | None,
    tokens: int | None,
    stage: Stage | None,
    only: str | None,
) -> Load | None:
    """Return what the model shall be asked; raise E252 for options that do not go together."""
    from interv.errors import IntervError

    if not analyze:
        given = "--prompt" if prompts else "--tokens" if tokens is not None else None
        if given is not None:
            raise IntervError("E252", f"'{given}' says nothing without --analyze")
        return None
    if only is not None or stage in (Stage.spec, Stage.graph):
        asked = f"--pass {only}" if only is not None else f"--stage {stage}"
        raise IntervError(
            "E252",
            f"'{asked}' shows nothing that --analyze measures",
            helps=["leave it out, or use --stage plan"],
        )
    from interv.measuring.analyze import NEW_TOKENS, PROMPTS, Load

    return Load(tuple(prompts or PROMPTS), NEW_TOKENS if tokens is None else tokens)


def _answer(
    files: Sequence[Path],
    model: str | None,
    explained: bool,
    stage: Stage | None,
    only: str | None,
    form: Format,
    load: Load | None,
) -> str:
    from interv.load import load_documents

    documents = load_documents(files)
    if model is None and not explained and only is None:
        return _summary_without_model(files)
    from interv.explain import explain, explain_pass, explain_spec

    if model is None:
        _refuse_without_model(stage, only, load)
        return explain_spec(documents, form.value)
    compilation = _compile(documents, model)
    if only is not None:
        return explain_pass(compilation, only)
    if explained:
        measured = _measure(compilation, files, model, load) if load else None
        return explain(compilation, stage.value if stage else None, form.value, measured)
    return summary(compilation)


def _compile(documents: Sequence[Document], model: str) -> Compilation:
    from interv.compile import compile_documents
    from interv.document.token_texts import find_encoder, texts
    from interv.model import model_facts

    facts = model_facts(model)
    # A tokenizer takes longer to read than most documents to compile.
    asks = any(texts(document) for document in documents)
    return compile_documents(documents, facts, find_encoder(model) if asks else None)


def _measure(
    compilation: Compilation, files: Sequence[Path], model: str, load: Load
) -> Measurement:
    from interv.measuring.analyze import analyze

    return analyze(compilation, files, model, load)


def _refuse_without_model(stage: Stage | None, only: str | None, load: Load | None) -> None:
    from interv.errors import IntervError

    if load is not None:
        raise IntervError(
            "E251",
            "'--analyze' needs a model",
            helps=["add --model with a folder that has a config.json and weights"],
        )
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
