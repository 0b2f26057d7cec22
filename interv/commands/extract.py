"""`interv extract`: contrastive texts to a direction for each layer of a model."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interv.errors import IntervError, each
from interv.terminal import terminal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from interv.extract import Extraction, Pair
    from interv.extract.job import Job
    from interv.extract.target import Target


class Method(StrEnum):
    """How a direction is made of activations."""

    mean = "mean"
    pca = "pca"
    probe = "probe"


class SiteName(StrEnum):
    """Where activations are taken."""

    pre_attn = "pre_attn"
    post_attn = "post_attn"
    post_block = "post_block"


ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="A model folder with weights, or a hub name.")
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="The vector file: NAME.gguf or NAME.safetensors.")
]
PairsOption = Annotated[
    Path | None, typer.Option(metavar="FILE.jsonl", help="Pairs of texts, one pair a line.")
]
PositiveOption = Annotated[
    Path | None, typer.Option(metavar="FILE.txt", help="Texts that have it, one a line.")
]
NegativeOption = Annotated[
    Path | None, typer.Option(metavar="FILE.txt", help="Texts that lack it, line by line.")
]
MethodOption = Annotated[Method, typer.Option(help="How each direction is made.")]
SiteOption = Annotated[SiteName, typer.Option(help="The site whose stream is read.")]
LayersOption = Annotated[str, typer.Option(help="Such as '*', 14, or '10..20, -1'.")]
PositionOption = Annotated[
    str, typer.Option(help="-1: the last token of the prompt. mean: all tokens of the text.")
]
ChatOption = Annotated[
    bool | None,
    typer.Option("--chat/--no-chat", help="Use the chat template. Default: if there is one."),
]
SystemOption = Annotated[str | None, typer.Option(help="The system message of the chat.")]
TemplateOption = Annotated[
    str, typer.Option(help="What each text is put into, at {text}.", metavar="TEXT")
]
HoldoutOption = Annotated[
    float, typer.Option(min=0, max=0.9, help="The share of pairs held back to judge by.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Chooses the pairs that are held back.")]
UnitOption = Annotated[bool, typer.Option("--scale-to-unit", help="Make each direction 1 long.")]
DtypeOption = Annotated[str, typer.Option(help="The engine's, such as float32; auto: the model's.")]
PlotOption = Annotated[
    Path | None, typer.Option(metavar="FILE.png", help="Draw layers and held-out texts.")
]
NameOption = Annotated[str | None, typer.Option(help="What to call it. Default: OUTPUT's.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]


def extract(
    model: ModelOption,
    output: OutputOption,
    pairs: PairsOption = None,
    positive: PositiveOption = None,
    negative: NegativeOption = None,
    method: MethodOption = Method.mean,
    site: SiteOption = SiteName.post_block,
    layers: LayersOption = "*",
    position: PositionOption = "-1",
    chat: ChatOption = None,
    system: SystemOption = None,
    template: TemplateOption = "{text}",
    holdout: HoldoutOption = 0.2,
    seed: SeedOption = 0,
    scale_to_unit: UnitOption = False,
    dtype: DtypeOption = "auto",
    plot: PlotOption = None,
    name: NameOption = None,
    force: ForceOption = False,
) -> None:
    """Make a vector: what a model's stream has more of in some texts than in others.

    \b
    Pairs that differ in what you want, and in nothing else, one JSON object a line or an array:
      {"positive": "I feel wonderful today!", "negative": "I feel awful today."}
      interv extract -m MODEL --pairs mood.jsonl -o mood.gguf --plot mood.png
    Answers to a question, the stream averaged over the answer:
      {"prompt": "How are you?", "positive": "Wonderful!", "negative": "Awful."}
      interv extract -m MODEL --pairs joy.jsonl --position mean -o joy.gguf
    Two files of texts, line by line, and what they are put into:
      interv extract -m MODEL --positive happy.txt --negative sad.txt \\
        --template "Pretend to be a {text} person." -o happy.safetensors

    \b
    mean    the mean of the positives minus that of the negatives; a good start
    pca     the axis along which the two texts of a pair differ most
    probe   across the plane that a logistic regression puts between the two sides

    Scale 1 of the result moves the negatives' mean to the positives', along the direction. Pairs
    held back tell how well each layer's direction does on texts it was not made from: look for
    layers with high accuracy, and steer a few around the middle of the model.

    Activations come from vLLM, at the very site that an edit changes. A GGUF file holds post_block
    from layer 1 on, as llama.cpp reads it; .safetensors holds any site. How a file was made stands
    in it: `interv vectors show FILE`.
    """
    asked = _Asked(method.value, holdout, seed, scale_to_unit, plot, name or output.stem)
    where = _Where(model, site.value, layers, position, dtype, (chat, system, template))
    try:
        _make(where, _pairs(pairs, positive, negative), output, force, asked)
    except IntervError as error:
        for one in each(error):
            typer.echo(f"{one}\n", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing was written, and no engine is left running", err=True)
        raise typer.Exit(130) from None


@dataclass(frozen=True, slots=True)
class _Where:
    """Where activations are taken; `around` is chat or not, its system message and a template."""

    model: str
    site: str
    layers: str
    position: str
    dtype: str
    around: tuple[bool | None, str | None, str]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is done with the activations."""

    method: str
    holdout: float
    seed: int
    unit: bool
    plot: Path | None
    name: str


def _pairs(pairs: Path | None, positive: Path | None, negative: Path | None) -> tuple[Pair, ...]:
    from interv.extract import read_pairs, read_sides

    if pairs is not None and positive is None and negative is None:
        return read_pairs(pairs)
    if pairs is None and positive is not None and negative is not None:
        return read_sides(positive, negative)
    raise IntervError(
        "E285",
        "the texts are either in --pairs, or in --positive and --negative",
        helps=("see `interv extract --help` for what stands in these files",),
    )


def _make(where: _Where, pairs: tuple[Pair, ...], output: Path, force: bool, asked: _Asked) -> None:
    with tempfile.TemporaryDirectory(prefix="interv-extract-") as folder:
        job, target = _plan(where, pairs, output, force, folder)
        _extract(job, target, asked)


def _plan(
    where: _Where, pairs: tuple[Pair, ...], output: Path, force: bool, folder: str
) -> tuple[Job, Target]:
    """Check all that can be known before an engine is started."""
    from interv.extract.job import Job
    from interv.extract.layers import parse_layers, parse_position
    from interv.extract.target import plan_target
    from interv.extract.tokens import Wording, check_wording
    from interv.model import model_facts, with_weights

    wording = Wording(*where.around)
    check_wording(wording)
    facts = model_facts(where.model)
    layers = parse_layers(where.layers, facts.num_layers, facts.name)
    place = parse_position(where.position)
    target = plan_target(output, where.site, layers, force=force)
    weights = with_weights(where.model, "it has no activations")
    job = Job(weights, pairs, where.site, layers, place, wording, where.dtype, folder)
    return job, target


def _extract(job: Job, target: Target, asked: _Asked) -> None:
    from interv.extract import extract_directions, split_pairs
    from interv.extract.activations import read_activations
    from interv.extract.plot import check_plot, save_plot
    from interv.extract.provenance import provenance
    from interv.extract.target import write_target
    from interv.progress import Progress

    split = split_pairs(job.pairs, asked.holdout, asked.seed)
    if asked.plot is not None:
        check_plot(asked.plot, bool(split.held))
    with Progress() as progress:
        read = read_activations(job, progress)
        progress.step(f"making {len(job.layers)} directions")
        found = extract_directions(read.values, job.layers, split, asked.method, unit=asked.unit)
        facts = provenance(asked.name, job, asked.method, asked.seed, found, read.facts)
    write_target(target, found, facts)
    if asked.plot is not None:
        save_plot(asked.plot, found, asked.name, job.site)
    _report(job, target, asked, found, facts)


def _report(
    job: Job, target: Target, asked: _Asked, found: Extraction, facts: Mapping[str, str]
) -> None:
    from interv.extract.table import layer_table, next_step, summary

    console = terminal()
    console.print(layer_table(found, ascii_only=console.options.ascii_only))
    for remark in target.remarks:
        typer.echo(f"note: {remark}", err=True)
    typer.echo(summary(found, job.site))
    plotted = "" if asked.plot is None else f", {asked.plot}"
    typer.echo(f"written: {target.path}{plotted} ({facts['pairs_digest'][:15]}…)\n")
    typer.echo("to start from:\n")
    typer.echo(next_step(asked.name, target.path.name, job.site, found, unit=asked.unit))
