"""chatspace: a `SteeringSpec` as JSON, or the bundle of vectors and experiments it began with.

    {"layers": {"14": {"operations": [{"type": "add", "vector": [...], "scale": 4.0},
                                      {"type": "projection_cap", "vector": [...], "max": 2.5},
                                      {"type": "ablation", "vector": [...], "scale": 0.0}]}}}

    {"vectors": {"calm": {"vector": [...], "layer": 14}},
     "experiments": [{"id": "all", "interventions": [{"vector": "calm", "cap": 2.5}]}]}

Operations edit what leaves a block, one after the other, for every token:

    add             h + s·v                        steer v scale s
    projection_cap  h + (clamp(p, min, max) − p)û  cap v in [min, max]
    ablation        h + (s − 1) p û                ablate v strength 1 − s, below 0 with `over`;
                                                   above 1 a rank-one update, scale s − 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from interv.document.spec import Ablate, Apply, Cap, Steer
from interv.document.wording import number_text
from interv.errors import IntervError, raise_all, suggest
from interv.importers.arrays import Array, direction
from interv.importers.draft import Change, Draft, place
from interv.importers.fields import LARGEST_LAYER, Fields, by_layer, shown
from interv.vectors.words import at_text

KINDS = {
    "add": "add",
    "addspec": "add",
    "projection_cap": "projection_cap",
    "projectioncap": "projection_cap",
    "projectioncapspec": "projection_cap",
    "cap": "projection_cap",
    "ablation": "ablation",
    "ablate": "ablation",
    "ablationspec": "ablation",
}
TAGS = ("type", "op", "kind")
FIELDS = {
    "add": ("vector", "scale"),
    "projection_cap": ("vector", "min", "max"),
    "ablation": ("vector", "scale"),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """What an operation does beside its direction; equal ones of several layers are one edit."""

    order: int  # its place in the list of its layer
    kind: str
    numbers: tuple[float | None, ...]  # scale, or min and max


def read_spec(fields: Fields, draft: Draft, name: str) -> None:
    """Add the program of a `SteeringSpec`; raise E211, E208 and E263 for all that is wrong."""
    fields.only(("layers",))
    found: dict[Operation, dict[int, Array]] = {}
    errors = []
    for layer, value in by_layer(fields.part("layers")).items():
        where = f"layers.{layer}"
        inner = value if isinstance(value, dict) else {"operations": value}
        listed = Fields(inner, where)
        try:
            listed.only(("operations",))
            for i, one in enumerate(listed.parts("operations")):
                operation = _operation(one, i)
                row = direction(one.need("vector"), one.inside("vector"))
                found.setdefault(operation, {})[layer] = row
        except IntervError as error:
            errors.append(error)
    raise_all(errors)
    ordered = sorted(found.items(), key=lambda item: item[0].order)
    edits = [edit for one, rows in ordered for edit in _edits(draft, one, rows)]
    draft.program(draft.options.name or name, edits, "sequential")


def _operation(fields: Fields, order: int) -> Operation:
    kind = _kind(fields)
    fields.only((*TAGS, *FIELDS[kind]))
    if kind == "projection_cap":
        return Operation(order, kind, _bounds(fields))
    if kind == "ablation" and not fields.has("scale"):
        note = "what is kept without it differs from one version to another"
        raise IntervError("E211", "'scale' is missing", notes=(f"in {fields.where}", note))
    return Operation(order, kind, (fields.number("scale", 1.0),))


def _kind(fields: Fields) -> str:
    tag = next((tag for tag in TAGS if fields.has(tag)), None)
    if tag is not None:
        said = fields.text(tag)
        if said.lower() not in KINDS:
            raise IntervError(
                "E211",
                f"{shown(said)} is not an operation",
                notes=(f"in {fields.where}", f"operations: {', '.join(FIELDS)}"),
                helps=suggest(said.lower(), FIELDS),
            )
        return KINDS[said.lower()]
    if fields.has("min") or fields.has("max"):
        return "projection_cap"
    note = "an addition and an ablation have the same fields"
    raise IntervError(
        "E211",
        "'type' is missing",
        notes=(f"in {fields.where}", note, f"operations: {', '.join(FIELDS)}"),
    )


def _bounds(fields: Fields) -> tuple[float | None, float | None]:
    low, high = fields.optional("min"), fields.optional("max")
    if low is None and high is None:
        raise IntervError(
            "E211", "'min' or 'max' is missing", notes=(f"in {fields.where}", "a cap has a bound")
        )
    check_bounds(low, high, fields.where)
    return low, high


def check_bounds(low: float | None, high: float | None, where: str) -> None:
    """Raise E208 for an interval without a number in it."""
    if low is not None and high is not None and low > high:
        message = f"the lower bound {low:g} is above the upper bound {high:g}"
        raise IntervError("E208", message, notes=(f"in {where}",))


def _edits(draft: Draft, one: Operation, rows: dict[int, Array]) -> Sequence[Change]:
    at, where = place(rows), f"operation {one.order}{at_text(rows)}"
    if one.kind == "projection_cap":
        low, high = one.numbers
        return [Cap(at=at, vector=draft.bank("bound", rows, where), low=low, high=high)]
    (scale,) = one.numbers
    assert scale is not None
    if one.kind == "add":
        return [Steer(at=at, vector=draft.bank("add", rows, where), scale=scale)]
    if scale == 1:
        draft.say(f"{where}: an ablation of scale 1 keeps all there is; left out")
        return []
    if scale < 1:
        name = draft.bank("remove", rows, where)
        return [Ablate(at=at, vector=name, over=scale < 0, strength=1 - scale)]
    draft.say(
        f"{where}: an ablation of scale {number_text(scale)} multiplies the component; "
        "it is a rank-one update here"
    )
    draft.check_rows(rows, where)
    units = {layer: _unit(row)[None, :] for layer, row in rows.items()}
    tensors = {f"layer.{i}.{part}": u for i, u in units.items() for part in ("read", "write")}
    name = draft.update("amplify", tensors, where)
    return [Apply(at=at, adapter=name, scale=scale - 1)]


def _unit(row: Array) -> Array:
    wide = row.astype(np.float64)
    wide /= np.abs(wide).max()
    return (wide / np.linalg.norm(wide)).astype(np.float32)


def read_bundle(fields: Fields, draft: Draft, name: str) -> None:
    """Add a program for each experiment of a bundle: caps from above, in their order.

    Raises E211 and E263 for all that is wrong.
    """
    fields.only(("vectors", "experiments"))
    given = fields.part("vectors")
    known: dict[str, tuple[int, str]] = {}
    errors = []
    for label in given.values:
        try:
            known[label] = _bundled(given.part(label), draft, label)
        except IntervError as error:
            errors.append(error)
    raise_all(errors)
    for i, one in enumerate(fields.parts("experiments")):
        one.only(("id", "interventions"))
        try:
            edits = [_intervention(item, known) for item in one.parts("interventions")]
        except IntervError as error:
            errors.append(error)
            continue
        title = one.text("id", f"{name}_{i}")
        draft.program(draft.options.name or title, edits, "sequential")
    raise_all(errors)


def _bundled(fields: Fields, draft: Draft, label: str) -> tuple[int, str]:
    fields.only(("vector", "layer"))
    (layer,) = Fields({"layer": [fields.need("layer")]}, fields.where).whole(
        "layer", 0, LARGEST_LAYER
    ) or (0,)
    row = direction(fields.need("vector"), fields.inside("vector"))
    return layer, draft.bank(label.rpartition("/")[2], {layer: row}, fields.where)


def _intervention(fields: Fields, known: dict[str, tuple[int, str]]) -> Change:
    fields.only(("vector", "cap"))
    name = fields.text("vector")
    if name not in known:
        raise IntervError(
            "E211",
            f"{shown(name)} is not a vector of the bundle",
            notes=(f"in {fields.where}", f"vectors there: {', '.join(list(known)[:12])}"),
            helps=suggest(name, known),
        )
    layer, vector = known[name]
    return Cap(at=place([layer]), vector=vector, high=fields.number("cap"))


def load_saved(path: Path) -> tuple[str, Fields]:
    """Read what torch or pickle saved of chatspace: the format's name and its fields.

    No code of the file runs. Raises E222 where it cannot be read, E260 for anything else.
    """
    from interv.vectors import chatspace, objects, pt_file
    from interv.vectors.raw import BadFile

    limit = path.stat().st_size
    try:
        loaded = pt_file.load(path) if path.suffix == ".pt" else pt_file.load_pickle(path)
        found = chatspace.operations(loaded)
        rows = [objects.numbers(one.vector, limit) for one in found or ()]
    except BadFile as error:
        kind = path.suffix.removeprefix(".")
        notes = (str(error),)
        raise IntervError("E222", f"'{path}' is not a valid {kind} file", notes=notes) from error
    if found is None:
        raise IntervError(
            "E260",
            f"'{path}' is of no format that can be imported",
            notes=("of what torch and pickle save, specs and bundles of chatspace can be",),
        )
    if isinstance(loaded, Mapping) and "experiments" in loaded:
        listed = {one.name: (one, row) for one, row in zip(found, rows, strict=True)}
        vectors = {
            name: {**loaded["vectors"][name], "vector": row} for name, (_, row) in listed.items()
        }
        return "chatspace-bundle", Fields({**loaded, "vectors": vectors})
    layers: dict[str, list[object]] = {}
    for one, row in zip(found, rows, strict=True):
        kind = "projection_cap" if one.kind == "cap" else one.kind
        layers.setdefault(str(one.layer), []).append({"type": kind, "vector": row, **one.settings})
    return "chatspace", Fields({"layers": layers})
