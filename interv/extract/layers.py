"""Read what `--layers` and `--position` say, for a model with so many blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from interv.errors import IntervError
from interv.extract.job import MEAN

_RANGE = re.compile(r"(-?\d{1,6})(?:\.\.(-?\d{1,6}))?")


def parse_layers(text: str, num_layers: int, model: str) -> tuple[int, ...]:
    """Return the layers that `*`, `14` or `10..20, -1` names, ascending, each once.

    As in a document: ranges include both ends, negative layers count from the end. Raises E285 for
    another text, E208 for an empty range, E240 for a layer outside the model.
    """
    found: set[int] = set()
    for item in text.split(","):
        found |= set(_item(item.strip(), text, num_layers, model))
    return tuple(sorted(found))


def _item(item: str, text: str, num_layers: int, model: str) -> Iterator[int]:
    if item == "*":
        yield from range(num_layers)
        return
    if (match := _RANGE.fullmatch(item)) is None:
        raise IntervError(
            "E285",
            f"'{text}' names no layers",
            helps=("for example: --layers '*', --layers 14, --layers '10..20, -1'",),
        )
    ends = [int(end) for end in match.groups() if end is not None]
    for end in ends:
        if not -num_layers <= end < num_layers:
            raise IntervError("E240", f"'{model}' has no layer {end}: it has {num_layers} blocks")
    first, last = (end % num_layers for end in (ends[0], ends[-1]))
    if first > last:
        raise IntervError("E208", f"{item} is an empty range of layers")
    yield from range(first, last + 1)


def parse_position(text: str) -> int | str:
    """Return -1 and the like, counted from the end of the prompt, or "mean"; raise E285 else."""
    if text == MEAN:
        return MEAN
    if re.fullmatch(r"-[1-9]\d{0,4}", text):
        return int(text)
    raise IntervError(
        "E285",
        f"'{text}' is not a position",
        notes=("-1 is the last token, -2 the one before it, mean all tokens of the text",),
    )
