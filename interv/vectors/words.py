"""How messages about vector files and adapters list names and layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from interv.document.wording import layer_text

NAMES_SHOWN = 12
# Stands for the one direction or update that serves every layer.
EVERY = -1


def list_text(names: Sequence[str]) -> str:
    """Print the first dozen of some names and how many there are besides."""
    if not names:
        return "none"
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def at_text(layers: Iterable[int]) -> str:
    """Print ` at layers 2, 3`; nothing for no layer and for what serves every one."""
    found = list(layers)
    if found in ([], [EVERY]):
        return ""
    return f" at layer{'s' if len(found) > 1 else ''} {layer_text(found)}"
