"""How numbers, layers, places and counts are written: in documents, explains and errors alike."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import islice

from interv.document.document import Document, SpecPath
from interv.document.sites import SITES, Site
from interv.document.spec import LayerRange, SiteRef

NAMES_LISTED = 50
# So many positions of a list are shown where nothing is read back; the rest are counted.
POSITIONS_LISTED = 12
_POSITION = r"-?\d+(?:\.\.-?\d+)?"
_LONG_LIST = re.compile(rf"\[({_POSITION}(?:, {_POSITION}){{{POSITIONS_LISTED},}})\]")


def number_text(value: float) -> str:
    """Print a number as short as reads back to it: `1.5`, `4`, `1e-05`."""
    return repr(float(value)).removesuffix(".0")


def item_text(item: int | str | LayerRange) -> str:
    """Print one item of a list of layers as the language writes it."""
    return f"{item.first}..{item.last}" if isinstance(item, LayerRange) else str(item)


def place_text(place: SiteRef) -> str:
    """Print a site and its layers: `post_block[10..20, -1]`."""
    return f"{place.name}[{', '.join(item_text(item) for item in place.layers)}]"


def layer_text(layers: Iterable[int]) -> str:
    """Print layers in the language's notation, runs of three and more as `a..b`."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    parts: list[str] = []
    for run in runs:
        parts += [f"{run[0]}..{run[-1]}"] if len(run) > 2 else [str(n) for n in run]
    return ", ".join(parts)


def sites_text(sites: list[Site]) -> str:
    """Print sites in the language's notation, layers of one name together."""
    named = {name: [site.layer for site in sites if site.name == name] for name in SITES}
    parts = [f"{name}[{layer_text(layers)}]" for name, layers in named.items() if layers]
    return ", ".join(parts)


def path_notes(document: Document, path: SpecPath) -> tuple[str, ...]:
    """Name a path of a document, as the note of an error, where there is no text to point into."""
    if document.span(*path) is not None:
        return ()
    return (f"in {document.name}: {'.'.join(str(part) for part in path)}",)


def brief(text: str) -> str:
    """Cut long lists of positions in a selector's text: `prompt[0, 2, … and 58 more]`."""

    def cut(found: re.Match[str]) -> str:
        items = found[1].split(", ")
        shown = ", ".join(items[: POSITIONS_LISTED - 2])
        return f"[{shown}, … and {len(items) - POSITIONS_LISTED + 2} more]"

    return _LONG_LIST.sub(cut, text)


def on_off(value: bool) -> str:
    """Print a switch as the language writes it."""
    return "on" if value else "off"


def counted(count: int, noun: str) -> str:
    """Print a count with its noun: `1 launch`, `30 launches`, `2 columns`."""
    plural = "es" if noun.endswith("ch") else "s"
    return f"{count} {noun}{'' if count == 1 else plural}"


def list_names(names: Collection[str]) -> str:
    """Print the first fifty of some names, and how many there are besides."""
    more = len(names) - NAMES_LISTED
    shown = ", ".join(islice(names, NAMES_LISTED))
    return f"{shown} and {more} more" if more > 0 else shown
