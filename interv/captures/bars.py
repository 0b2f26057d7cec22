"""A projection in the terminal: a line a token, with a bar from zero to its value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from interv.captures.projection import Projection
from interv.captures.visible import visible

if TYPE_CHECKING:
    from rich.text import Text

HALF = 24
WIDEST = 20


def bars(projection: Projection, *, ascii_only: bool) -> Iterator[Text]:
    """Yield lines of at most 85 columns: position, token, value and bar.

    Colour tells the sign, which the side of the bar tells too. What is not finite has no bar.
    """
    from rich.cells import cell_len
    from rich.text import Text

    finite = np.where(np.isfinite(projection.value), projection.value, 0.0)
    top = float(np.abs(finite).max()) or 1.0
    full, axis = ("=", "|") if ascii_only else ("━", "│")
    generated = projection.position >= projection.prompt_tokens
    for i, value in enumerate(projection.value):
        if i and generated[i] and not generated[i - 1]:
            yield Text("-- generated --" if ascii_only else "── generated ──", style="dim")
        length = round(HALF * abs(float(finite[i])) / top)
        label = shown(projection.label(i), ascii_only=ascii_only)
        # Some signs are two columns wide.
        gap = " " * max(0, WIDEST - cell_len(label))
        line = Text(f"{projection.position[i]:>6} {label}{gap} {value:>9.3f} ")
        left, right = (length, 0) if value < 0 else (0, length)
        line.append(" " * (HALF - left) + full * left, style="magenta")
        line.append(axis)
        line.append(full * right, style="cyan")
        yield line


def shown(text: str, *, ascii_only: bool, longest: int = WIDEST) -> str:
    """Return a token's text with what cannot be seen escaped, cut to `longest` characters.

    Nothing that a file holds can move the cursor or colour the terminal.
    """
    out = visible(text)
    if ascii_only:
        out = out.encode("ascii", "backslashreplace").decode()
    more = "..." if ascii_only else "…"
    return out if len(out) <= longest else out[: longest - len(more)] + more
