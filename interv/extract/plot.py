"""Draw an extraction: how well each layer tells the sides apart, and the best layer's texts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from interv.errors import IntervError
from interv.extract.extraction import Extraction
from interv.files import replacing

POSITIVE, NEGATIVE, PLAIN = "#c2410c", "#1d4ed8", "#475569"
_INCHES = (10.0, 3.6)


def check_plot(path: Path, extraction_holds_back: bool) -> None:
    """Raise, before anything is run, for a plot that could not be drawn or written.

    E221 for another suffix than .png, E232 for a folder that does not exist, E285 where no pairs
    are held out, so that there is nothing to draw.
    """
    if path.suffix != ".png":
        raise IntervError("E221", f"'{path.name}' cannot be written: a plot is a .png file")
    if not path.parent.is_dir():
        reason = f"there is no folder '{path.parent}'"
        raise IntervError("E232", f"'{path}' cannot be written", notes=(reason,))
    if not extraction_holds_back:
        message = "'--plot' shows held-out texts, and --holdout 0 leaves none"
        raise IntervError("E285", message)


def save_plot(path: Path, extraction: Extraction, name: str, site: str) -> None:
    """Write a PNG: accuracy and separation by layer, and the held-out texts at the best layer.

    Raises E232 where the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Without pyplot: no window, no state that outlives the call.
    figure = Figure(figsize=_INCHES, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    by_layer, texts = figure.subplots(1, 2, width_ratios=(3, 2))
    figure.suptitle(name)
    _draw_layers(by_layer, extraction, site)
    _draw_texts(texts, extraction, site)
    drawn = io.BytesIO()
    # Without the date, so that the same numbers give the same bytes.
    figure.savefig(drawn, format="png", metadata={"Software": None})
    with replacing(path) as part:
        part.write_bytes(drawn.getvalue())


def _draw_layers(axes: Any, extraction: Extraction, site: str) -> None:
    layers = [one.layer for one in extraction.results]
    accuracy = [one.accuracy for one in extraction.results]
    separation = [one.separation for one in extraction.results]
    right = axes.twinx()
    drawn = [
        *axes.plot(layers, accuracy, "o-", color=PLAIN, ms=3, label="held-out accuracy"),
        *right.plot(layers, separation, "s--", color=POSITIVE, ms=3, label="separation (d)"),
    ]
    axes.axhline(0.5, color=PLAIN, lw=0.8, ls=":")
    axes.set_ylim(0, 1.05)
    axes.set_xlabel(f"layer of {site}")
    axes.set_ylabel("accuracy")
    right.set_ylabel("Cohen's d")
    right.set_ylim(min(0.0, *(one or 0.0 for one in separation)), None)
    axes.legend(handles=drawn, loc="lower right", fontsize=8)


def _draw_texts(axes: Any, extraction: Extraction, site: str) -> None:
    best = extraction.best
    assert best is not None
    sides = (("positive", best.positive, POSITIVE), ("negative", best.negative, NEGATIVE))
    for height, (label, values, colour) in enumerate(sides):
        # A little up and down, so that equal values stay visible.
        jitter = [height + 0.16 * ((i % 3) - 1) for i in range(len(values))]
        axes.scatter(values, jitter, color=colour, s=22, alpha=0.8, label=label)
    axes.axvline(best.threshold, color=PLAIN, lw=0.8, ls=":")
    axes.set_yticks([0, 1], ["positive", "negative"])
    axes.set_ylim(1.5, -0.5)
    axes.set_xlabel(f"held-out texts along {site}[{best.layer}]")
