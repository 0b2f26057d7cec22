"""What an extraction found, layer by layer, for people to read."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from interv.document.wording import counted, layer_text
from interv.extract.extraction import Extraction, LayerResult

if TYPE_CHECKING:
    from rich.table import Table

BAR_WIDTH = 16
BEST, GOOD = "best", "good"
# Pairs held out: with fewer, each text is worth more than a tenth of the accuracy.
FEW = 5
# What the scales of a first try come to, over all layers: what one adds, the next ones keep.
STRENGTH = 2.0


def layer_table(extraction: Extraction, *, ascii_only: bool = False) -> Table:
    """Return a row a layer: held-out accuracy and separation, norm, cosine with the next layer."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("layer", "accuracy", "separation"):
        table.add_column(name, justify="right")
    table.add_column("", style="cyan", no_wrap=True, min_width=BAR_WIDTH)
    for name in ("norm", "next layer"):
        table.add_column(name, justify="right")
    table.add_column("")
    top = max((abs(one.separation or 0.0) for one in extraction.results), default=0.0)
    for one in extraction.results:
        table.add_row(*_row(one, extraction, top, "=" if ascii_only else "━"))
    return table


def _row(one: LayerResult, extraction: Extraction, top: float, sign: str) -> tuple[str, ...]:
    best = extraction.best
    mark = GOOD if one.layer in extraction.good else ""
    share = max(0.0, one.separation or 0.0) / (top or 1.0)
    return (
        str(one.layer),
        _number(one.accuracy, ".0%"),
        _number(one.separation, ".2f"),
        sign * round(BAR_WIDTH * share),
        f"{one.norm:.4g}",
        _number(one.next_cosine, ".3f"),
        BEST if best is not None and one.layer == best.layer else mark,
    )


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def summary(extraction: Extraction, site: str) -> str:
    """Return what the table comes to, in a line or two."""
    used = counted(extraction.pairs, "pair")
    best = extraction.best
    if best is None:
        return f"{used} used, none held out: nothing tells how good these directions are"
    kept = counted(extraction.held, "pair")
    few = ", which are few to judge by" if extraction.held < FEW else ""
    return (
        f"{used} used, {kept} held out{few}\n"
        f"texts held out are told apart best at {site}[{layer_text(extraction.good)}]:"
        f" {_number(best.accuracy, '.0%')} of them at {site}[{best.layer}]"
    )


def _middle(extraction: Extraction) -> tuple[int, ...]:
    """Return those of the middle third of the layers whose accuracy is the best one's.

    Where there is none, of all layers. The layer that separates most may well be the first, which
    sees little but words, or one near the end, which hardly acts on anything.
    """
    results = extraction.results
    if (best := extraction.best) is not None:
        results = tuple(one for one in results if one.accuracy == best.accuracy)
    ends = (extraction.results[0].layer, extraction.results[-1].layer)
    third = (ends[1] - ends[0]) / 3
    middle = [one.layer for one in results if ends[0] + third <= one.layer <= ends[1] - third]
    return tuple(middle or [one.layer for one in results])


def next_step(name: str, path: str, site: str, extraction: Extraction, *, unit: bool) -> str:
    """Return a document to start from: steering at the middle layers that tell texts apart."""
    layers = _middle(extraction)
    scale = min(1.0, STRENGTH / len(layers))
    if unit:
        chosen = [one for one in extraction.results if one.layer in layers and one.positive.size]
        gaps = [float(one.positive.mean() - one.negative.mean()) for one in chosen]
        scale *= fmean(gaps or [1.0])
    return (
        "interv 1\n"
        f'vector {name} = "{path}"\n'
        f"program {name} {{ steer {name} at {site}[{layer_text(layers)}] scale {scale:.1g} }}\n"
        f"default {name}"
    )
