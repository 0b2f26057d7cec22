"""ReFT adapters as pyreft and pyvene save them: a folder of a config and a file an intervention.

A layer may have several interventions, each for positions of its own: the first and the last
tokens of a prompt, in the paper. Each is an adapter, its unit behind a `#`: `style#0`, `style#1`,
as in the names of the files. Wu et al., 2024 (arXiv:2404.03592). Dropout rests outside training.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from interv.errors import IntervError, raise_all
from interv.vectors.arrays import Arrays, read_arrays
from interv.vectors.pyreft_config import Config, Intervention, read_config
from interv.vectors.pyreft_kinds import parts_of
from interv.vectors.updates import Found, LowRankParts
from interv.vectors.words import list_text

SUFFIXES = (".bin", ".pt", ".safetensors")
# What pyvene saves of the model itself, often an empty dict.
MODEL = "pytorch_model.bin"
INTERVENTION = "intkey_"
UNIT = re.compile(r"(.+)#(0|[1-9][0-9]{0,3})")
NUMBERS = {2: "two", 3: "three", 4: "four"}
POSITIONS = "pyreft edits some positions of the prompt, which the folder does not name: see `when`"
LINEAR = "the folder names no activation: 'linear', pyreft's default, is taken"


def read(folder: Path, shown: str, light: bool = False, unit: int | None = None) -> Found:
    """Return the updates of a pyreft folder, of one unit where a layer has several.

    Raises E220 to E227 for its files, E233 for its config, E234 for what an edit cannot express,
    E235, E840 and E841 for parts that do not go together, E842 for a unit that there is not;
    NeedsTorch if `light`, where torch has to read.
    """
    config = read_config(folder, shown)
    _check_sites(config, shown)
    chosen = _chosen(config, shown, unit)
    files = dict(zip(config.interventions, _files(folder, shown, config), strict=True))
    _check_model(folder, shown, light)
    parts, errors = {}, []
    for item in chosen:
        path = files[item]
        try:
            parts[item.layer] = _parts(read_arrays(path, f"{shown}/{path.name}", (), light), item)
        except IntervError as error:
            errors.append(error)
    raise_all(errors)
    notes = (_placed(config, unit),) if config.activation else (LINEAR, _placed(config, unit))
    return Found(_format(chosen), parts, chosen[0].site, notes)


def split_unit(path: Path) -> tuple[Path, int | None]:
    """Take `style#1` apart: a folder and one of its units, None where all are meant."""
    match = UNIT.fullmatch(path.name)
    if match is None or path.exists():
        return path, None
    return path.with_name(match[1]), int(match[2])


def units_in(path: Path) -> list[Path]:
    """Return the adapters of a path: each unit of a folder whose layers have several, or itself.

    Raises as `read` does for the config of a folder.
    """
    units = read_config(path, str(path)).units if path.is_dir() else 1
    return [path] if units == 1 else [path.with_name(f"{path.name}#{i}") for i in range(units)]


def _format(items: Sequence[Intervention]) -> str:
    titles = list(dict.fromkeys(item.kind.title for item in items))
    return "pyreft" if titles == ["LoReFT"] else f"pyreft, {' and '.join(titles)}"


def _placed(config: Config, unit: int | None) -> str:
    if config.positions is None:
        return POSITIONS
    one = unit is not None and config.units > 1
    return f"trained at {config.positions} of the prompt" + (f", this is unit {unit}" * one)


def _check_sites(config: Config, shown: str) -> None:
    sites = list(dict.fromkeys(item.site for item in config.interventions))
    if len(sites) > 1:
        raise IntervError(
            "E234",
            f"'{shown}' edits at two sites, and an adapter has one",
            notes=(f"sites: {', '.join(sites)}",),
        )


def _chosen(config: Config, shown: str, unit: int | None) -> list[Intervention]:
    items, units = config.interventions, config.units
    if unit is None and units > 1:
        layer = next(item.layer for item in items if item.unit)
        names = [f"'{shown}#{i}'" for i in range(min(units, 4))]
        raise IntervError(
            "E235",
            f"'{shown}' has {NUMBERS.get(units, units)} interventions at layer {layer}",
            notes=("each is for positions of its own, and an adapter is one of them",),
            helps=(
                f"name one: {' or '.join(names)}",
                f"interv import {shown} writes a document that applies all",
            ),
        )
    chosen = [item for item in items if unit is None or item.unit == unit]
    if not chosen:
        there = ", ".join(f"#{i}" for i in range(min(units, 9)))
        raise IntervError("E842", f"'{shown}' has no unit #{unit}", notes=(f"units: {there}",))
    twice = Counter(item.layer for item in chosen)
    if max(twice.values()) > 1:
        layer = max(twice, key=lambda one: twice[one])
        raise IntervError("E235", f"'{shown}' has two interventions at layer {layer}")
    return chosen


def _files(folder: Path, shown: str, config: Config) -> list[Path]:
    """Return the file of each intervention; one file under a name of its own is the only one's."""
    wanted = config.interventions
    here = sorted(
        path for path in folder.iterdir() if path.suffix in SUFFIXES and path.name != MODEL
    )
    if len(here) == len(wanted) == 1 and not here[0].name.startswith(INTERVENTION):
        return here
    found, errors = [], []
    for item in wanted:
        hits = [path for path in here if path.stem == item.stem]
        if len(hits) == 1:
            found += hits
        else:
            what = "has no file" if not hits else "has two files"
            note = f"files there: {list_text([path.name for path in here])}"
            where = f"layer {item.layer}" + (f", unit #{item.unit}" if item.unit else "")
            errors.append(IntervError("E235", f"'{shown}' {what} for {where}", notes=(note,)))
    raise_all(errors)
    rest = [path.name for path in here if path not in found and path.name.startswith(INTERVENTION)]
    if rest:
        raise IntervError("E235", f"'{shown}/{rest[0]}' belongs to no intervention of the config")
    return found


def _check_model(folder: Path, shown: str, light: bool) -> None:
    path = folder / MODEL
    if path.is_file() and read_arrays(path, f"{shown}/{MODEL}", (), light).by_name:
        raise IntervError(
            "E234",
            f"'{shown}/{MODEL}' holds weights of the model, which an edit cannot change",
            helps=("load them into the model, and leave the file out here",),
        )


def _parts(arrays: Arrays, item: Intervention) -> LowRankParts:
    parts = parts_of(arrays, item.kind)
    rank, width = parts.write.shape
    for size, said, name in ((rank, item.rank, "rank"), (width, item.width, "width")):
        if said not in (None, size):
            raise IntervError("E235", f"'{arrays.shown}' has {name} {size}, its config says {said}")
    return parts
