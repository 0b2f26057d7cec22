"""`interv demo`: one real model, unedited and under each example program, side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interv.errors import IntervError
from interv.measuring.engine_process import QUIET_ENV, run_module
from interv.terminal import terminal

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from interv.measuring.generate import Job

PROMPTS = (
    "How do you feel about rainy days?",
    "Write the first lines of a story about a cat.",
    "What is the capital of France?",
    "Describe a day at the ocean.",
)
PROGRAMS = ("joy", "gloom", "landlocked", "seaside", "sulky", "bureaucrat")
EXPLAINED = "bureaucrat"
UNEDITED = "unedited"
MIN_COLUMN = 22  # characters in which prose can still be read

# For an engine that starts in seconds and keeps to a small machine; only the child gets them.
CHILD_ENV = {**QUIET_ENV, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_CI_ENV": "1"}


def demo(
    examples: Annotated[
        Path | None, typer.Option(help="The folder of example programs; default: the repository's.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A model folder; default: SmolLM2-135M-Instruct.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, max=512, help="Length of each answer.")] = 48,
) -> None:
    """Ask a real model the same questions unedited and under each example program.

    The engine is stock vLLM, and each request of its one batch chooses its program. Then the
    explain of one program says what was done to its graph.

    Example: interv demo --tokens 60
    """
    try:
        _demo(examples, model, tokens)
    except IntervError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; no engine is left running", err=True)
        raise typer.Exit(130) from None


def _demo(examples: Path | None, model: Path | None, tokens: int) -> None:
    from interv.commands.compile import compile_
    from interv.demo.model import demo_model_path

    files = example_files(examples)
    folder = model or demo_model_path()
    answers = _ask(folder, files, tokens)
    console = terminal()
    for part in layout(answers, {name: program_text(f) for name, f in files.items()}, console):
        console.print(part)
    explained = files[EXPLAINED]
    console.rule(f"interv compile {explained.name} --model {folder.name} --explain")
    compile_([explained], model=str(folder), explain=True)


def example_files(folder: Path | None) -> dict[str, Path]:
    """Return the example programs by name; raise E544 where the folder lacks one."""
    # They are in the repository, beside the package, and not in an installed wheel.
    where = folder or Path(__file__).resolve().parents[2] / "examples"
    files = {name: where / f"{name}.interv" for name in PROGRAMS}
    missing = [file.name for file in files.values() if not file.is_file()]
    if missing:
        raise IntervError(
            "E544",
            f"there is no '{missing[0]}' in '{where}'",
            notes=(f"wanted: {', '.join(file.name for file in files.values())}",),
            helps=("name the examples of interv's repository with --examples",),
        )
    return files


def program_text(file: Path) -> str:
    """Return the statements of a file's program, one a line, as they are written."""
    text = file.read_text(encoding="utf-8")
    body = text[text.index("{") + 1 : text.index("}")]
    return "\n".join(" ".join(line.split()) for line in body.splitlines() if line.strip())


def _ask(folder: Path, files: Mapping[str, Path], tokens: int) -> dict[str, list[str]]:
    """Return the answers of each program by its name, the unedited ones first."""
    from interv.measuring.generate import Job
    from interv.progress import Progress

    asked = ("off", *files)
    with Progress() as progress:
        progress.step(f"one engine, one batch: {len(PROMPTS)} prompts × {', '.join(asked)}")
        documents = tuple(str(file) for file in files.values())
        answers = run_engine(Job(str(folder), documents, PROMPTS, asked, tokens))
    return {UNEDITED: answers.pop("off"), **answers}


def run_engine(job: Job) -> dict[str, list[str]]:
    """Run a `Job` in a process of its own and return its answers by expression.

    Raises E545 where there are none. No process outlives the call.
    """
    found = run_module("interv.measuring.generate", job.dump(), {**os.environ, **CHILD_ENV})
    return dict(found["answers"])


def layout(
    answers: Mapping[str, Sequence[str]], programs: Mapping[str, str], console: Console
) -> list[RenderableType]:
    """Return one table with a column a program, or one table a prompt where it is narrow."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wide = console.width >= MIN_COLUMN * (len(answers) + 1)
    if wide:
        table = Table(box=box.ROUNDED, show_lines=True, title="greedy answers of one model")
        table.add_column("prompt", ratio=2, style="dim")
        for name in answers:
            heading = Text.assemble((name, "bold"), "\n", (programs.get(name, ""), "cyan"))
            table.add_column(heading, ratio=3)
        for i, prompt in enumerate(PROMPTS):
            table.add_row(prompt, *(Text(_flat(answers[name][i])) for name in answers))
        return [table]
    legend = Table(box=None, pad_edge=False, show_header=False)
    for name, text in programs.items():
        legend.add_row(Text(name, "bold"), Text(text, "cyan"))
    parts: list[RenderableType] = [legend]
    for i, prompt in enumerate(PROMPTS):
        table = Table(box=box.ROUNDED, title=prompt, show_header=False, show_lines=True)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(ratio=1)
        for name in answers:
            table.add_row(name, Text(_flat(answers[name][i])))
        parts.append(table)
    return parts


def _flat(answer: str) -> str:
    return " ".join(answer.split())
