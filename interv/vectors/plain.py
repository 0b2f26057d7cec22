"""Adapters as plain tensors: `layer.N.read`, `.bias`, `.write`, or `layer.N.weight`, `.bias`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from interv.errors import IntervError
from interv.vectors.arrays import Arrays
from interv.vectors.updates import Array, Found, LinearParts, LowRankParts, Parts
from interv.vectors.words import EVERY, at_text, list_text

NAME = re.compile(r"(?:layer\.(0|[1-9][0-9]{0,5})\.)?(read|bias|write|weight)")
# The names that a linear map has when it was saved by EasySteer's linear transport.
TRANSPORT = MAP, BIAS = ("A_", "B_")
SCALE = "EasySteer's scale s means s·(h A_ᵀ + B_), which is the same at scale 1 alone"
LOW_RANK = {"read", "write"}
FORMS = "read, bias, write (low rank) or weight, bias (linear), each behind layer.N. or alone"


def is_plain(arrays: Mapping[str, tuple[int, ...]]) -> bool:
    """Say whether tensors of these names and shapes are an adapter rather than directions."""
    if set(arrays) & set(TRANSPORT):
        return True
    found = {name: match for name in arrays if (match := NAME.fullmatch(name))}
    if any(match[2] in LOW_RANK for match in found.values()) and len(found) > 1:
        return True
    square = [name for name in found if name.endswith("weight") and len(arrays[name]) == 2]
    return any("." in name or len(set(arrays[name])) == 1 for name in square)


def from_arrays(arrays: Arrays) -> Found:
    """Return the updates that the names of tensors spell.

    A bias that is missing is zero. Raises E223 for a tensor that is missing, E227 for a shape
    that does not fit, E235 for names that go together in no way.
    """
    if arrays.by_name and set(arrays.by_name) <= set(TRANSPORT):
        return _transport(arrays)
    by_layer = _by_layer(arrays)
    kinds = {layer: bool(names & LOW_RANK) for layer, names in by_layer.items()}
    both = [layer for layer, names in by_layer.items() if names & LOW_RANK and "weight" in names]
    if both or len(set(kinds.values())) > 1:
        raise IntervError(
            "E235",
            f"'{arrays.shown}' holds low-rank updates and linear maps{at_text(both)}",
            notes=(f"an adapter has {FORMS}",),
        )
    read = _low_rank if any(kinds.values()) else _plain_linear
    return Found(arrays.format, {layer: read(arrays, _prefix(layer)) for layer in by_layer})


def _transport(arrays: Arrays) -> Found:
    """Return A_ [H, H] and B_, for every layer; B_ may have the batch axis of a fit, [1, H]."""
    named = dict(arrays.by_name)
    if BIAS in named and named[BIAS].ndim == 2 and len(named[BIAS]) == 1:
        named[BIAS] = named[BIAS][0]
    parts = _linear(Arrays(arrays.shown, arrays.format, named), MAP, BIAS)
    return Found(arrays.format, {EVERY: parts}, notes=(SCALE,))


def _by_layer(arrays: Arrays) -> dict[int, set[str]]:
    if not arrays.by_name:
        raise IntervError("E223", f"'{arrays.shown}' holds no tensors")
    found: dict[int, set[str]] = {}
    odd = []
    for name in arrays.by_name:
        if match := NAME.fullmatch(name):
            found.setdefault(EVERY if match[1] is None else int(match[1]), set()).add(match[2])
        else:
            odd.append(name)
    if odd:
        raise IntervError(
            "E235",
            f"'{arrays.shown}' holds '{odd[0]}', which is no part of an adapter",
            notes=(f"tensors there: {list_text(list(arrays.by_name))}", f"an adapter has {FORMS}"),
        )
    if EVERY in found and len(found) > 1:
        raise IntervError(
            "E235",
            f"'{arrays.shown}' holds an update for every layer beside those of single layers",
            notes=(f"tensors there: {list_text(list(arrays.by_name))}",),
        )
    return found


def _low_rank(arrays: Arrays, prefix: str) -> Parts:
    read = arrays.pick(f"{prefix}read", (None, None), "[rank, H]")
    rank, width = read.shape
    wanted = f"[{rank}, {width}], as '{prefix}read'"
    write = arrays.pick(f"{prefix}write", (rank, width), wanted)
    return LowRankParts(read, _bias(arrays, f"{prefix}bias", rank, "[rank]"), write)


def _plain_linear(arrays: Arrays, prefix: str) -> Parts:
    return _linear(arrays, f"{prefix}weight", f"{prefix}bias")


def _linear(arrays: Arrays, map_name: str, bias_name: str) -> Parts:
    weight = arrays.pick(map_name, (None, None), "[H, H]")
    width = weight.shape[1]
    weight = arrays.pick(map_name, (width, width), "[H, H]")
    return LinearParts(weight, _bias(arrays, bias_name, width, "[H]"))


def _bias(arrays: Arrays, name: str, length: int, wanted: str) -> Array | None:
    if name not in arrays.by_name:
        return None
    return arrays.pick(name, (length,), f"{wanted}, here [{length}]")


def _prefix(layer: int) -> str:
    return "" if layer == EVERY else f"layer.{layer}."
