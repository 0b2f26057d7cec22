"""A folder of pyreft: a program that applies its interventions where they were trained.

    f7+l7, two interventions a layer   apply style_first when prompt[0:7]
                                       apply style_last  when prompt[-7:]
    f7+l7, one with shared weights     apply style when prompt[0:7] or prompt[-7:]

Positions are of the prompt alone, as pyreft's `get_intervention_locations` has them: the first half
of the interventions gets the first tokens, the other half the last ones.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from interv.document.spec import Apply, At, Selector, Slice
from interv.errors import IntervError
from interv.importers.draft import Draft, place
from interv.importers.fields import Fields, shown
from interv.importers.triggers import any_of
from interv.vectors.pyreft_config import Config, read_config

FOLDER = "folder"
POSITIONS = re.compile(r"(?:f([1-9][0-9]{0,5}))?(?:(?<=.)\+(?=.))?(?:l([1-9][0-9]{0,5}))?")
# What pyreft's own helpers train where they are not told: `make_multiple_position_…` and
# `make_last_position_supervised_data_module`.
DEFAULTS = {1: "l1", 2: "f1+l1"}
ENDS = ("first", "last")


def open_folder(path: Path) -> Fields:
    """Return a folder as the fields that `read` takes; raise E233 where it has no config."""
    read_config(path, path.name)
    return Fields({FOLDER: str(path.absolute())})


def read(fields: Fields, draft: Draft, name: str) -> None:
    """Add the program of a folder.

    Raises E220 to E235 and E840 to E842 for what the folder holds, E843 for positions that are
    none, E844 for interventions that positions do not divide.
    """
    folder = os.path.relpath(fields.text(FOLDER), draft.options.root.absolute())
    base = Path(fields.text(FOLDER)).name
    config = read_config(Path(fields.text(FOLDER)), base)
    when = _selectors(config, draft, base)
    edits = []
    for unit, selector in enumerate(when):
        several = len(when) > 1
        wanted = f"{base}_{ENDS[unit]}" if several else base
        loaded = draft.read_adapter(wanted, f"{folder}#{unit}" if several else folder, base)
        adapter, layers = draft.keep_adapter(loaded), loaded.layers or ()
        edits.append(
            Apply(at=place(layers, loaded.site or "post_block"), adapter=adapter, when=selector)
        )
        for note in loaded.notes:
            if "activation" in note:
                draft.say(note)
    draft.program(draft.options.name or name, edits, "sequential")


def _selectors(config: Config, draft: Draft, base: str) -> list[Selector]:
    """Return which tokens each unit of a layer is for."""
    if config.units > len(ENDS):
        raise IntervError(
            "E844",
            f"'{base}' has {config.units} interventions at a layer",
            notes=("positions divide them in two: first and last tokens",),
            helps=(f"declare each, adapter first = '{base}#0', and say `when` it applies",),
        )
    said = config.positions if draft.options.positions is None else draft.options.positions
    if said is None:
        said = DEFAULTS[config.units]
        draft.say(
            f"the folder does not say at which positions it was trained: {said}, what pyreft takes"
            " where it is told nothing; --positions f7+l7 says others"
        )
    ends = read_positions(said)
    if len(ends) == 2:
        draft.say("of a prompt shorter than both ends together, pyreft takes half for each end")
    if config.units == 1:
        return [any_of(ends)]
    _check_halves(config, base)
    return list(ends) if len(ends) == 2 else list(ends) * 2


def _check_halves(config: Config, base: str) -> None:
    """Raise E844 where the first half of the interventions is not the first of each layer."""
    units = [item.unit for item in config.interventions]
    half = len(units) // 2
    if units != [0] * half + [1] * (len(units) - half) or len(units) % 2:
        raise IntervError(
            "E844",
            f"'{base}' does not list its layers twice, one time for each end of a prompt",
            notes=(f"units of its interventions, in their order: {_listed(units)}",),
            helps=(f"declare each, adapter first = '{base}#0', and say `when` it applies",),
        )


def _listed(units: Sequence[int]) -> str:
    return ", ".join(str(unit) for unit in units[:20]) + (", …" if len(units) > 20 else "")


def read_positions(text: str) -> tuple[Selector, ...]:
    """Return the ends of a prompt that pyreft's `f7+l7`, `f7` or `l7` names; raise E843."""
    match = POSITIONS.fullmatch(text.replace(" ", ""))
    first, last = (match[1], match[2]) if match else (None, None)
    if not (first or last) or bool(first and last) != ("+" in text):
        raise IntervError(
            "E843",
            f"{shown(text)} names no positions",
            notes=("f7 is the first seven tokens of a prompt, l7 the last seven, f7+l7 both",),
        )
    found: list[Selector] = []
    if first:
        one = first == "1"
        found.append(At(phase="prompt", index=0) if one else _slice(0, int(first)))
    if last:
        one = last == "1"
        found.append(At(phase="prompt", index=-1) if one else _slice(-int(last), None))
    return tuple(found)


def _slice(start: int, stop: int | None) -> Selector:
    return Slice(phase="prompt", start=start, stop=stop)
