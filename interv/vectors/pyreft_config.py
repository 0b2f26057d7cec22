"""The config of a pyreft folder: which layers it edits, where in the block, and how.

pyvene writes it as `config.json`. An intervention is a list, `[layer, component, unit, units,
rank, …]`, or a dict of these names; `intervention_types` has the class of each.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interv.document.spec import SiteName
from interv.errors import IntervError, raise_all
from interv.files import MIB, read_regular
from interv.vectors.pyreft_kinds import KINDS, LOREFT, Kind

NAMES = ("reft_config.json", "config.json")
MOST_BYTES = MIB
MOST = 10**6  # no layer, rank or width reaches it
FIELDS = ("layer", "component", "unit", "max_number_of_units", "low_rank_dimension")
COMPONENTS: Mapping[str, SiteName] = {"block_input": "pre_attn", "block_output": "post_block"}
# `model.layers[8].output`, `transformer.h[8].input`: a block of the model by its place in it.
BLOCK = re.compile(r"(?:\w+\.)*(?:layers|h|blocks)\[(0|[1-9][0-9]{0,5})\]\.(input|output)")
# What the paper's training script leaves beside the config: its own arguments.
ARGUMENTS = "args.json"
DEFAULT = "LoreftIntervention"


@dataclass(frozen=True, slots=True)
class Intervention:
    """One intervention of a config: its layer, its site, and its file's name without suffix.

    `unit` counts the interventions of one place from 0, as the number behind `#` in a file's name.
    """

    layer: int
    unit: int
    kind: Kind
    site: SiteName
    stem: str
    rank: int | None  # where the config says it
    width: int | None  # where the config says it


@dataclass(frozen=True, slots=True)
class Config:
    """What a config says, as far as an edit needs it."""

    interventions: tuple[Intervention, ...]
    activation: str | None  # None where the folder does not say it
    positions: str | None = None  # `f7+l7`, where the folder says it
    shared: bool = False  # the folder says that one intervention has all its positions

    @property
    def units(self) -> int:
        """Return how many interventions the busiest layer has."""
        return 1 + max(item.unit for item in self.interventions)


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
    trained = _arguments(folder, shown.removesuffix(path.name))
    types = _types(config, len(entries), shown)
    errors = list(_unfit(types, shown))
    errors += _bent(_activations(config, entries), shown)
    errors += _bent(_activations(trained, ()), f"{shown.removesuffix(path.name)}{ARGUMENTS}")
    found: list[Intervention] = []
    for index, entry in enumerate(entries):
        kind = KINDS.get(types[index], LOREFT)
        try:
            found.append(_intervention(entry, index, kind, _width(config, index), shown))
        except IntervError as error:
            errors.append(error)
    raise_all(errors)
    # The script's own default, where it was given none, is a linear activation.
    linear = "linear" if "act_fn" in trained else None
    said = next((str(name) for name in _activations(config, entries)), linear)
    positions = trained.get("position")
    return Config(
        tuple(_numbered(found)),
        said,
        positions if isinstance(positions, str) else None,
        trained.get("share_weights") is True,
    )


def _arguments(folder: Path, inside: str) -> Mapping[str, Any]:
    """Return what a training script noted of its arguments, nothing where there is no note."""
    path = folder / ARGUMENTS
    return _load(path, f"{inside}{ARGUMENTS}") if path.is_file() else {}


def _numbered(items: Sequence[Intervention]) -> Iterator[Intervention]:
    """Number the interventions that share a place, in the order of the config, as pyvene does."""
    seen: Counter[str] = Counter()
    for item in items:
        yield replace(item, unit=seen[item.stem], stem=f"{item.stem}#{seen[item.stem]}")
        seen[item.stem] += 1


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
    entry: Mapping[str, Any], index: int, kind: Kind, width: int | None, shown: str
) -> Intervention:
    component, layer = str(entry.get("component", "block_output")), entry.get("layer")
    unit, units = str(entry.get("unit", "pos")), entry.get("max_number_of_units", 1)
    stem = f"intkey_layer_{layer}_comp_{component}_unit_{unit}_nunit_{units}"
    if match := BLOCK.fullmatch(component):
        # The layer beside such a component is pyvene's default, not where it acts.
        layer, place = int(match[1]), f"block_{match[2]}"
        stem = f"intkey_comp_{component.replace('.', '_')}_unit_{unit}_nunit_{units}"
    else:
        place = component
    if place not in COMPONENTS:
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
    rank = _whole(entry.get("low_rank_dimension"))
    return Intervention(layer, 0, kind, COMPONENTS[place], stem, rank, width)


def _width(config: Mapping[str, Any], index: int) -> int | None:
    sizes = config.get("intervention_dimensions")
    size = sizes[index] if isinstance(sizes, list) and index < len(sizes) else None
    return _whole(size)


def _types(config: Mapping[str, Any], count: int, shown: str) -> list[str]:
    """Return the class of each intervention, without its modules; LoReFT where none is named.

    pyvene writes them as `<class 'pyreft.interventions.LoreftIntervention'>`, one for each
    intervention; one alone is for all.
    """
    given = config.get("intervention_types") or []
    given = given if isinstance(given, list) else [given]
    names = [(re.findall(r"\w+", str(one)) or ["?"])[-1] for one in given] or [DEFAULT]
    if len(set(names)) == 1:
        return names[:1] * count
    if len(names) != count:
        raise IntervError(
            "E841",
            f"'{shown}' names {len(names)} intervention types for {count} interventions",
            notes=(f"types: {', '.join(dict.fromkeys(names))}",),
        )
    return names


def _unfit(types: Sequence[str], shown: str) -> Iterator[IntervError]:
    """Yield the interventions whose formula is not known."""
    for name in sorted(set(types) - set(KINDS)):
        yield IntervError(
            "E234",
            f"'{shown}': intervention '{name}' cannot be applied",
            notes=(f"interventions that can: {', '.join(KINDS)}",),
        )


def _bent(activations: Iterable[object], shown: str) -> Iterator[IntervError]:
    """Yield the activations that no update, linear in the stream, can express."""
    for name in sorted({str(name) for name in activations} - {"linear"}):
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
