"""The config of a pyreft folder: which layers it edits, where in the block, and how.

pyvene writes it as `config.json`. An intervention is a list, `[layer, component, unit, units,
rank, …]`, or a dict of these names; `intervention_types` has the class of each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interv.document.spec import SiteName
from interv.errors import IntervError, raise_all
from interv.files import MIB, read_regular

NAMES = ("reft_config.json", "config.json")
MOST_BYTES = MIB
MOST = 10**6  # no layer, rank or width reaches it
FIELDS = ("layer", "component", "unit", "max_number_of_units", "low_rank_dimension")
COMPONENTS: Mapping[str, SiteName] = {"block_input": "pre_attn", "block_output": "post_block"}
# `model.layers[8].output`, `transformer.h[8].input`: a block of the model by its place in it.
BLOCK = re.compile(r"(?:\w+\.)*(?:layers|h|blocks)\[(0|[1-9][0-9]{0,5})\]\.(input|output)")
# Both compute h + Rᵀ(W h + b - R h); they differ in how training starts.
TYPES = ("LoreftIntervention", "LoreftIntervention_IdentityInit")


@dataclass(frozen=True, slots=True)
class Intervention:
    """One intervention of a config: its layer, its site, and its file's name without suffix."""

    layer: int
    site: SiteName
    stem: str
    rank: int | None  # where the config says it
    width: int | None  # where the config says it


@dataclass(frozen=True, slots=True)
class Config:
    """What a config says, as far as an edit needs it."""

    interventions: tuple[Intervention, ...]
    activation: str | None  # None where the config does not say it


def read_config(folder: Path, shown: str) -> Config:
    """Read the config of a pyreft folder.

    Raises E233 where it is missing, cannot be read or names no layers, E234 for interventions
    that an edit of the stream cannot express.
    """
    path = _find(folder, shown)
    config = _load(path, f"{shown}/{path.name}")
    shown = f"{shown}/{path.name}"
    items = config.get("representations")
    if not isinstance(items, list) or not items:
        raise IntervError(
            "E233", f"'{shown}' names no layers", notes=("it has no representations",)
        )
    entries = [_entry(item) for item in items]
    errors = list(_unfit(config, entries, shown))
    found = []
    for index, entry in enumerate(entries):
        try:
            found.append(_intervention(entry, index, _width(config, index), shown))
        except IntervError as error:
            errors.append(error)
    raise_all(errors)
    return Config(tuple(found), next((str(name) for name in _activations(config, entries)), None))


def _find(folder: Path, shown: str) -> Path:
    here = [name for name in NAMES if (folder / name).is_file()]
    if not here:
        raise IntervError(
            "E233",
            f"'{shown}' has no config",
            notes=(f"a pyreft folder has one of: {', '.join(NAMES)}",),
        )
    if len(here) > 1:
        raise IntervError(
            "E233", f"'{shown}' has two configs", notes=(f"files there: {', '.join(here)}",)
        )
    return folder / here[0]


def _load(path: Path, shown: str) -> Mapping[str, Any]:
    try:
        found = json.loads(read_regular(path, MOST_BYTES).decode("utf-8"))
    except OSError as error:
        raise IntervError("E233", f"'{shown}' cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise IntervError("E233", f"'{shown}' is not JSON", notes=(str(error),)) from error
    if not isinstance(found, dict):
        raise IntervError("E233", f"'{shown}' is not a JSON object")
    return found


def _entry(item: object) -> Mapping[str, Any]:
    if isinstance(item, Mapping):
        return item
    return dict(zip(FIELDS, item, strict=False)) if isinstance(item, list) else {}


def _intervention(
    entry: Mapping[str, Any], index: int, width: int | None, shown: str
) -> Intervention:
    component, layer = str(entry.get("component", "block_output")), entry.get("layer")
    unit, units = str(entry.get("unit", "pos")), entry.get("max_number_of_units", 1)
    stem = f"intkey_layer_{layer}_comp_{component}_unit_{unit}_nunit_{units}#0"
    if match := BLOCK.fullmatch(component):
        # The layer beside such a component is pyvene's default, not where it acts.
        layer, kind = int(match[1]), f"block_{match[2]}"
        stem = f"intkey_comp_{component.replace('.', '_')}_unit_{unit}_nunit_{units}#0"
    else:
        kind = component
    if kind not in COMPONENTS:
        known = ", ".join(f"{name} ({site})" for name, site in COMPONENTS.items())
        raise IntervError(
            "E234",
            f"'{shown}': component '{component}' is not a site of the stream",
            notes=(f"components that are: {known}",),
        )
    if unit != "pos":
        raise IntervError(
            "E234", f"'{shown}': unit '{unit}' cannot be edited", notes=("unit that can: pos",)
        )
    if (layer := _whole(layer)) is None:
        raise IntervError("E233", f"'{shown}': intervention {index} names no layer")
    return Intervention(
        layer, COMPONENTS[kind], stem, _whole(entry.get("low_rank_dimension")), width
    )


def _width(config: Mapping[str, Any], index: int) -> int | None:
    sizes = config.get("intervention_dimensions")
    size = sizes[index] if isinstance(sizes, list) and index < len(sizes) else None
    return _whole(size)


def _unfit(
    config: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], shown: str
) -> Iterator[IntervError]:
    """Yield what no low-rank update can express: other formulas, activations that bend."""
    given = config.get("intervention_types") or []
    # They are written as `<class 'pyreft.interventions.LoreftIntervention'>`.
    types = [
        re.findall(r"\w+", str(one))[-1:] for one in (given if isinstance(given, list) else [given])
    ]
    for name in sorted({name for names in types for name in names} - set(TYPES)):
        yield IntervError(
            "E234",
            f"'{shown}': intervention '{name}' cannot be applied",
            notes=(f"interventions that can: {', '.join(TYPES)}",),
        )
    for name in sorted({str(name) for name in _activations(config, entries)} - {"linear"}):
        yield IntervError(
            "E234",
            f"'{shown}': activation '{name}' cannot be applied",
            notes=("an update is linear in the stream, so only 'linear' can",),
        )


def _activations(
    config: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]
) -> Iterator[object]:
    for place in (config, *entries, *(entry.get("intervention") for entry in entries)):
        if isinstance(place, Mapping) and place.get("act_fn") is not None:
            yield place["act_fn"]


def _whole(value: object) -> int | None:
    """Return a count or a layer, and None for anything that is none."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < MOST else None
