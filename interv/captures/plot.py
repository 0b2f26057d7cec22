"""A projection as a picture: bars over the tokens of the text, a row of tokens below the other."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interv.captures.bars import shown
from interv.captures.projection import Projection
from interv.errors import IntervError
from interv.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOKENS_A_ROW = 48
MOST_ROWS = 40
POSITIVE, NEGATIVE, PROMPT = "#1f77b4", "#d62728", "#f2f2f2"


def save_plot(projection: Projection, target: Path) -> None:
    """Write the picture to a .png, replaced in one step.

    Raises E221 for another suffix, E278 for more than 1920 tokens and E232 where it cannot be
    written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if target.suffix != ".png":
        message = f"'{target.name}' cannot be written by its suffix '{target.suffix}'"
        raise IntervError("E221", message, notes=("written: .png",))
    count = len(projection.value)
    rows = -(-count // TOKENS_A_ROW)
    if rows > MOST_ROWS:
        message = f"a picture of {count} tokens is too large, {MOST_ROWS * TOKENS_A_ROW} fit"
        raise IntervError("E278", message, helps=("choose fewer: --position 0:512",))
    figure = Figure(figsize=(14, 0.8 + 1.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{projection.title} (the prompt is grey)", parse_math=False)
    axes = figure.subplots(rows, 1, sharey=True, squeeze=False)
    for i, one in enumerate(axes[:, 0]):
        _row(one, projection, slice(i * TOKENS_A_ROW, min(count, (i + 1) * TOKENS_A_ROW)))
    with replacing(target) as part, warnings.catch_warnings():
        # The font lacks the signs of some languages, and draws a box for them.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(part, dpi=110, format="png")


def _row(axes: Axes, projection: Projection, tokens: slice) -> None:
    value = projection.value[tokens]
    value = np.where(np.isfinite(value), value, np.nan)  # what is not finite has no bar
    at = np.arange(len(value))
    inside: Any = projection.position[tokens] < projection.prompt_tokens
    colours = [POSITIVE if one >= 0 else NEGATIVE for one in value]
    axes.bar(at, value, color=colours, width=0.8)
    axes.axhline(0, color="black", linewidth=0.6)
    if inside.any():
        axes.axvspan(-0.5, int(inside.sum()) - 0.5, color=PROMPT, zorder=0)
    axes.set_xlim(-0.5, TOKENS_A_ROW - 0.5)
    labels = [
        shown(projection.label(i), ascii_only=False, longest=14)
        for i in range(tokens.start, tokens.stop)
    ]
    axes.set_xticks(at, labels, rotation=90, fontsize=7, parse_math=False)
    axes.set_ylabel(f"h·v/‖v‖ from {projection.position[tokens.start]} on", fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
