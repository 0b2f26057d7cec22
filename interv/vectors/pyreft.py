"""LoReFT adapters as pyreft and pyvene save them: a folder of a config and a file a layer.

    h' = h + (W h + b - R h) Rᵀ,   R = rotate_layer [H, r], W = weight [r, H], b = bias [r]

Wu et al., 2024 (arXiv:2404.03592). Dropout rests outside training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from interv.errors import IntervError, raise_all
from interv.vectors.arrays import Arrays, read_arrays
from interv.vectors.pyreft_config import Config, Intervention, read_config
from interv.vectors.updates import Found, LowRankParts
from interv.vectors.words import list_text

SUFFIXES = (".bin", ".pt", ".safetensors")
# What pyvene saves of the model itself, often an empty dict.
MODEL = "pytorch_model.bin"
INTERVENTION = "intkey_"
PREFIX = "learned_source."
TENSORS = ("bias", "rotate_layer", "weight")
POSITIONS = "pyreft edits some positions of the prompt, which the folder does not name: see `when`"
LINEAR = "the folder names no activation: 'linear', pyreft's default, is taken"


def read(folder: Path, shown: str, light: bool = False) -> Found:
    """Return the updates of a pyreft folder.

    Raises E220 to E227 for its files, E233 for its config, E234 for what an edit cannot express,
    E235 for parts that do not go together; NeedsTorch if `light`, where torch has to read.
    """
    config = read_config(folder, shown)
    _check_places(config, shown)
    files = _files(folder, shown, config.interventions)
    _check_model(folder, shown, light)
    parts, errors = {}, []
    for item, path in zip(config.interventions, files, strict=True):
        try:
            parts[item.layer] = _parts(read_arrays(path, f"{shown}/{path.name}", (), light), item)
        except IntervError as error:
            errors.append(error)
    raise_all(errors)
    notes = (POSITIONS,) if config.activation else (LINEAR, POSITIONS)
    return Found("pyreft", parts, config.interventions[0].site, notes)


def _check_places(config: Config, shown: str) -> None:
    sites = list(dict.fromkeys(item.site for item in config.interventions))
    if len(sites) > 1:
        raise IntervError(
            "E234",
            f"'{shown}' edits at two sites, and an adapter has one",
            notes=(f"sites: {', '.join(sites)}",),
        )
    layers = [item.layer for item in config.interventions]
    if twice := sorted({layer for layer in layers if layers.count(layer) > 1}):
        raise IntervError("E235", f"'{shown}' has two interventions at layer {twice[0]}")


def _files(folder: Path, shown: str, wanted: Sequence[Intervention]) -> list[Path]:
    """Return the file of each intervention; one file under a name of its own is the only one's."""
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
            errors.append(
                IntervError("E235", f"'{shown}' {what} for layer {item.layer}", notes=(note,))
            )
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
    named = {name.removeprefix(PREFIX): values for name, values in arrays.by_name.items()}
    if odd := sorted(set(named) - set(TENSORS)):
        raise IntervError(
            "E235",
            f"'{arrays.shown}' holds '{odd[0]}', which is no part of LoReFT",
            notes=(f"LoReFT has: {', '.join(TENSORS)}",),
        )
    if len(named) < len(arrays.by_name):
        note = f"tensors there: {list_text(list(arrays.by_name))}"
        raise IntervError(
            "E235", f"'{arrays.shown}' holds a tensor with '{PREFIX}' and without", notes=(note,)
        )
    named_arrays = Arrays(arrays.shown, arrays.format, named)
    weight = named_arrays.pick("weight", (None, None), "[rank, H]")
    rank, width = weight.shape
    for size, said, name in ((rank, item.rank, "rank"), (width, item.width, "width")):
        if said not in (None, size):
            raise IntervError("E235", f"'{arrays.shown}' has {name} {size}, its config says {said}")
    rotate = named_arrays.pick("rotate_layer", (width, rank), f"[H, rank], here [{width}, {rank}]")
    bias = named_arrays.pick("bias", (rank,), f"[rank], here [{rank}]")
    write = rotate.T.copy()
    return LowRankParts(read=weight, bias=bias, write=write, rotated=True)
