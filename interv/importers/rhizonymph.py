"""A steering module of RhizoNymph: additions and clamps in three tiers, by hook and layer.

    {"vectors": {"post_block": {"14": [...], "15": {"vector": [...], "scale": 2.0}}},
     "decode_clamps": {"post_block": {"14": [{"vector": [...], "max": 4.0}]}}}

Tiers are selectors: base `all`, `prefill_` `prompt`, `decode_` `generated`. At a hook the vectors
of all tiers are added, then the clamps read what that made, all of them the same stream:

    h' = y + Σ strength (clip(y·û, min, max) − y·û) û,   y = h + Σ scale·v

Where no two clamps meet, that is additions before clamps under `conflict sequential`. Where they
do it is `conflict sum`, under which clamps read `h`: since y·û = h·û + δ with δ = Σ scale·v·û
known here, a clamp of y to [min, max] is one of h to [min − δ, max − δ].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from interv.document.spec import Cap, Conflict, Everything, Selector, SiteName, Steer
from interv.errors import IntervError, raise_all
from interv.importers.arrays import Array, direction, packed, shaped
from interv.importers.chatspace import check_bounds
from interv.importers.draft import Change, Draft, place, unfit
from interv.importers.families import equal_of
from interv.importers.fields import LARGEST_LAYER, Fields, by_layer
from interv.importers.triggers import GENERATED, PROMPT
from interv.vectors.words import at_text

SELECTORS: Mapping[str, Selector] = {"base": Everything(), "prefill": PROMPT, "decode": GENERATED}
# A module names its tiers `vectors`, a request `steering_vectors`.
TIERS: Mapping[str, tuple[str, str]] = {
    f"{'' if tier == 'base' else f'{tier}_'}{middle}{what}": (tier, what)
    for middle in ("", "steering_")
    for what in ("vectors", "clamps")
    for tier in SELECTORS
}
PHASES = ("prefill", "decode")
# A tier at one of our sites, and the hook it was at.
Key: TypeAlias = tuple[str, str, SiteName]


@dataclass(frozen=True, slots=True, eq=False)
class Clamp:
    """One clamp of a layer."""

    row: Array
    low: float | None
    high: float | None
    strength: float


@dataclass(slots=True)
class Module:
    """What a module holds, at our sites."""

    adds: dict[Key, dict[int, tuple[Array, float]]] = field(default_factory=dict)
    clamps: dict[Key, dict[int, list[Clamp]]] = field(default_factory=dict)


def read(fields: Fields, draft: Draft, name: str) -> None:
    """Add the program of a module.

    Raises E211, E208 and E263 for what is wrong, E261 for hooks without an equal, all together.
    """
    fields.only(("name", *TIERS))
    module, errors = Module(), []
    for tier_name in fields.values:
        if tier_name == "name" or not fields.has(tier_name):
            continue
        tier, what = TIERS[tier_name]
        tiers = fields.part(tier_name)
        for hook in tiers.values:
            try:
                _hook(tiers, hook, (tier, what), module, draft)
            except IntervError as error:
                errors.append(error)
    raise_all(errors)
    parallel = _several(module)
    edits = [*_adds(module, draft), *_clamps(module, draft, parallel)]
    conflict: Conflict = "sum" if parallel else "sequential"
    title = fields.text("name") if fields.has("name") else name
    draft.program(draft.options.name or title, edits, conflict)


def _hook(tiers: Fields, hook: str, kind: tuple[str, str], module: Module, draft: Draft) -> None:
    tier, what = kind
    given, where = tiers.part(hook), tiers.inside(hook)
    equal = equal_of(hook, draft.options.family, where)
    noun = "an addition" if what == "vectors" else "a clamp"
    if equal.site is None or (what == "clamps" and not equal.clamps):
        left = f"{noun} at '{hook}'"
        draft.cannot(where, left, equal.reason, f"the {what} there are left out")
        return
    key = (tier, hook, equal.site)
    if key in (module.adds if what == "vectors" else module.clamps):
        raise IntervError("E211", f"'{hook}' stands in two spellings of a tier", notes=(where,))
    if equal.site != hook:
        draft.say(f"'{hook}' of the source is {equal.site} here, where an addition does the same")
    if what == "vectors":
        module.adds[key] = _rows(given, draft)
    else:
        module.clamps[key] = {
            layer: [_clamp(one) for one in Fields({str(layer): found}, where).parts(str(layer))]
            for layer, found in by_layer(given).items()
        }


def _rows(given: Fields, draft: Draft) -> dict[int, tuple[Array, float]]:
    """Return the vectors of a hook with their scales; those of zero add nothing."""
    if "layer_indices" in given.values:
        found = _packed(given)
    else:
        found = {i: _entry(value, given.inside(str(i))) for i, value in by_layer(given).items()}
    zero = [layer for layer, (row, _) in found.items() if not row.any()]
    if zero:
        draft.say(f"{given.where}: zero vectors add nothing, and are left out{at_text(zero)}")
    return {layer: one for layer, one in found.items() if layer not in zero}


def _entry(value: object, where: str) -> tuple[Array, float]:
    if not isinstance(value, dict):
        return direction(value, where), 1.0
    fields = Fields(value, where)
    fields.only(("vector", "scale"))
    return direction(fields.need("vector"), fields.inside("vector")), fields.number("scale")


def _packed(fields: Fields) -> dict[int, tuple[Array, float]]:
    fields.only(("dtype", "shape", "layer_indices", "data", "scales"))
    shape = fields.whole("shape", 1, 1 << 20) or ()
    layers = fields.whole("layer_indices", 0, LARGEST_LAYER) or ()
    if len(shape) != 2 or shape[0] != len(layers) or len(set(layers)) != len(layers):
        what = f"rows of shape {list(shape)} for layers {list(layers)}"
        raise unfit(what, fields.where, "wanted: [layers, H], each layer once")
    kind = fields.text("dtype", "float32").removeprefix("torch.")
    rows = shaped(packed(fields.need("data"), kind, fields.where), shape, fields.where)
    return dict(zip(layers, zip(rows, _scales(fields, len(layers)), strict=True), strict=True))


def _scales(fields: Fields, count: int) -> list[float]:
    if not fields.has("scales"):
        return [1.0] * count
    found = fields.values["scales"]
    if not isinstance(found, list) or len(found) != count:
        raise fields.wrong("scales", f"a list of {count} numbers", found)
    where = fields.inside("scales")
    return [Fields({"scale": one}, where).number("scale") for one in found]


def _clamp(fields: Fields) -> Clamp:
    fields.only(("vector", "min", "max", "value", "strength"))
    low, high, pinned = (fields.optional(one) for one in ("min", "max", "value"))
    bounded = low is not None or high is not None
    if bounded and pinned is not None:
        note = "a value pins the component, and leaves no bounds"
        raise IntervError(
            "E211", "'value' stands beside 'min' or 'max'", notes=(f"in {fields.where}", note)
        )
    if not bounded and pinned is None:
        notes = (f"in {fields.where}", "a clamp has a bound or a value")
        raise IntervError("E211", "'min', 'max' or 'value' is missing", notes=notes)
    if pinned is not None:
        low = high = pinned
    check_bounds(low, high, fields.where)
    strength = fields.number("strength", 1.0)
    if not 0 <= strength <= 1:
        notes = (f"in {fields.where}", "0 to 1")
        raise IntervError("E207", f"strength {strength:g} is out of range", notes=notes)
    row = direction(fields.need("vector"), fields.inside("vector"))
    return Clamp(row, low, high, strength)


def _several(module: Module) -> bool:
    """Say whether two clamps read one token's stream at a site."""
    counts: dict[tuple[SiteName, int, str], int] = {}
    for (tier, _, site), layers in module.clamps.items():
        for layer, found in layers.items():
            for phase in _phases(tier):
                at = (site, layer, phase)
                counts[at] = counts.get(at, 0) + len(found)
    return max(counts.values(), default=0) > 1


def _phases(tier: str) -> tuple[str, ...]:
    return PHASES if tier == "base" else (tier,)


def _label(tier: str, hook: str) -> str:
    return tier if hook == "post_block" else f"{tier}_{hook}"


def _adds(module: Module, draft: Draft) -> list[Change]:
    edits: list[Change] = []
    for (tier, hook, site), rows in module.adds.items():
        if not rows:
            continue
        bank = {layer: row for layer, (row, _) in rows.items()}
        name = draft.bank(_label(tier, hook), bank, f"{tier} vectors at {hook}")
        by_scale: dict[float, list[int]] = {}
        for layer, (_, scale) in rows.items():
            by_scale.setdefault(scale, []).append(layer)
        for scale, layers in by_scale.items():
            at = place(layers, site)
            edits.append(Steer(at=at, when=SELECTORS[tier], vector=name, scale=scale))
    return edits


def _clamps(module: Module, draft: Draft, parallel: bool) -> list[Change]:
    edits: list[Change] = []
    for (tier, hook, site), layers in module.clamps.items():
        for i in range(max(len(found) for found in layers.values())):
            bank = {layer: found[i] for layer, found in layers.items() if i < len(found)}
            rows = {layer: one.row for layer, one in bank.items()}
            name = draft.bank(f"{_label(tier, hook)}_clamp", rows, f"{tier} clamps at {hook}")
            same: dict[tuple[str, float | None, float | None, float], list[int]] = {}
            for layer, one in bank.items():
                for when, low, high in _bounds(module, one, tier, (site, layer), parallel):
                    same.setdefault((when, low, high, one.strength), []).append(layer)
            for (when, low, high, strength), at in same.items():
                edit = Cap(
                    at=place(at, site), when=SELECTORS[when], vector=name, low=low, high=high
                )
                edits.append(edit.model_copy(update={"strength": strength}))
    if parallel:
        draft.say("clamps all read one stream there: 'conflict sum', bounds moved by what is added")
    return edits


def _bounds(
    module: Module, one: Clamp, tier: str, at: tuple[SiteName, int], parallel: bool
) -> list[tuple[str, float | None, float | None]]:
    """Return for which tokens a clamp has which bounds, as a statement of ours reads the stream."""
    if not parallel:
        return [(tier, one.low, one.high)]
    moved = {phase: _added(module, one.row, phase, at) for phase in _phases(tier)}
    if len(set(moved.values())) == 1:
        moved = {tier: next(iter(moved.values()))}
    return [
        (
            when,
            None if one.low is None else one.low - shift,
            None if one.high is None else one.high - shift,
        )
        for when, shift in moved.items()
    ]


def _added(module: Module, row: Array, phase: str, at: tuple[SiteName, int]) -> float:
    """Return how far the additions of a phase move the component along a direction."""
    wide = row.astype(np.float64)
    total = np.zeros_like(wide)
    for (tier, _, site), rows in module.adds.items():
        if phase in _phases(tier) and site == at[0] and at[1] in rows:
            added, scale = rows[at[1]]
            if added.shape != row.shape:
                return 0.0
            total += scale * added.astype(np.float64)
    norm = float(np.linalg.norm(wide))
    return float(total @ wide) / norm if norm > 0 else 0.0
