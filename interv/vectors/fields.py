"""What may stand beside a direction in a file: which layer it is of, how rows are numbered."""

from __future__ import annotations

from collections.abc import Mapping

from interv.vectors.naming import read_names
from interv.vectors.raw import BadFile

LAYER_FIELDS = (
    "layer",
    "layer_id",
    "layer_idx",
    "layer_index",
    "layer_num",
    "layers",
    "layer_ids",
    "layer_indices",
)
HOOK_FIELDS = ("hook", "hook_name", "hook_point", "layer_name", "module", "site")
ROWS_FIELD = "rows"
MOST_LAYERS = 10**6
SHOWN = 8


def layers_said(beside: Mapping[str, object]) -> tuple[str, int | tuple[int, ...]] | None:
    """Return which field of a file says a layer, or a list of them, and what it says.

    Raises BadFile where it says something else, or where two fields differ.
    """
    found = {name: _layers(name, beside[name]) for name in LAYER_FIELDS if name in beside}
    for name in HOOK_FIELDS:
        text = beside.get(name)
        if isinstance(text, str) and (reading := read_names([text])) is not None:
            found[name] = next(iter(reading.layers))
    if len(set(found.values())) > 1:
        texts = " and ".join(f"'{name}' {value}" for name, value in found.items())
        raise BadFile(f"it says its layer twice, and not the same: {texts}")
    return next(iter(found.items()), None)


def _layers(name: str, value: object) -> int | tuple[int, ...]:
    listed = value if isinstance(value, list) else [value]
    whole = [int(str(one).removesuffix(".0")) for one in listed if _is_layer(one)]
    if not whole or len(whole) < len(listed):
        raise BadFile(f"its '{name}' is {str(value)[:40]!r}; layers are whole numbers from 0")
    return tuple(whole) if isinstance(value, list) else whole[0]


def _is_layer(value: object) -> bool:
    if isinstance(value, str):
        return value.isdecimal() and len(value) < 7
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return whole and not isinstance(value, bool) and 0 <= float(str(value)) < MOST_LAYERS


def left_out(beside: Mapping[str, object], used: str) -> str:
    """Say which fields beside the directions nobody looks at; nothing for none."""
    names = [name for name in beside if name not in (used, ROWS_FIELD)]
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    shown = ", ".join(f"'{_tame(name)}'{_value(beside[name])}" for name in names[:SHOWN])
    return f"not looked at: {shown}{more}"


def _value(value: object) -> str:
    if isinstance(value, bool | int | float):
        return f" {value}"
    return f" '{_tame(value)}'" if isinstance(value, str) else ""


def _tame(text: str) -> str:
    cut = text if len(text) <= 40 else f"{text[:40]}…"
    return "".join(sign if sign.isprintable() else "?" for sign in cut)
