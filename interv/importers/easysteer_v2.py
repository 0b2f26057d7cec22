"""A `SteeringSpec` of EasySteer version 2, as JSON.

    {"vectors": [{"source": "happy.gguf", "algorithm": "direct", "scale": 2.0, "layers": [10],
                  "apply": {"generation": "all"}}],
     "conflict": "priority"}

Arrays may stand in the file itself, as `data`.
"""

from __future__ import annotations

from pathlib import Path

from interv.errors import IntervError, raise_all
from interv.importers.draft import Change, Draft
from interv.importers.easysteer import (
    CONFLICTS,
    ROUTER,
    V2_ALGORITHMS,
    Asked,
    Bank,
    Held,
    add_program,
    check_algorithm,
    statements,
)
from interv.importers.fields import LARGEST_LAYER, Fields
from interv.importers.payloads import read_payload
from interv.importers.triggers import v2_selector
from interv.vectors.words import EVERY

VECTOR = (
    *("source", "data", "algorithm", "scale", "layers"),
    *("normalize", "params", "apply", "name"),
)
SPEC = ("vectors", "conflict")
ADAPTERS = ("linear", "lm_steer", "loreft")


def read(fields: Fields, draft: Draft, name: str) -> None:
    """Add the program of one spec.

    Raises E211 for fields that are missing, unknown or of another kind, and what `draft` refuses,
    of all vectors together.
    """
    fields.only(SPEC)
    policy = fields.choice("conflict", CONFLICTS, "priority")
    found: list[tuple[str, Change]] = []
    errors = []
    for one in fields.parts("vectors"):
        try:
            found += [(one.where, edit) for edit in _vector(one, draft)]
        except IntervError as error:
            errors.append(error)
    raise_all(errors)
    add_program(draft, draft.options.name or name, found, policy)


def _vector(fields: Fields, draft: Draft) -> list[Change]:
    fields.only(VECTOR)
    algorithm = fields.text("algorithm", "direct")
    check_algorithm(algorithm, V2_ALGORITHMS, fields.where)
    if algorithm == ROUTER:
        reason = "a router's logits are no site of the stream"
        draft.cannot(fields.where, f"'{ROUTER}'", reason, "the vector is left out")
        return []
    if fields.has("params") and fields.part("params").values:
        fields.part("params").only(())
    when = v2_selector(fields.part("apply"))
    layers = fields.whole("layers", 0, LARGEST_LAYER)
    if layers == ():
        raise fields.wrong("layers", "a list that is not empty", [])
    if when is None:
        draft.say(f"{fields.where}: 'apply' selects no token, so it is not applied; left out")
        return []
    held = _load(fields, draft, algorithm)
    scale = fields.number("scale", 1.0)
    asked = Asked(fields.where, algorithm, scale, layers, fields.flag("normalize"), when)
    if isinstance(held, Bank) and EVERY in held.rows and layers is None:
        notes = (f"in {fields.where}", "its file holds one direction, which names no layer")
        raise IntervError("E211", "'layers' is missing", notes=notes)
    return statements(draft, asked, held)


def _load(fields: Fields, draft: Draft, algorithm: str) -> Held:
    if fields.has("data") == fields.has("source"):
        what = "both 'source' and 'data' are" if fields.has("data") else "no 'source' or 'data' is"
        raise IntervError(
            "E211",
            f"{what} given",
            notes=(f"in {fields.where}", "one says where the arrays are"),
        )
    label = fields.text("name", "") or Path(fields.text("source", "")).stem or algorithm
    if fields.has("data"):
        return read_payload(draft, fields.part("data"), algorithm, label)
    path = fields.text("source")
    if algorithm in ADAPTERS:
        return draft.read_adapter(label, path, fields.where)
    if algorithm == "concept_replace":
        raise IntervError(
            "E263",
            f"'{path}' is one vector file, which does not fit",
            notes=(f"in {fields.where}", "'concept_replace' takes two: give them as 'data'"),
        )
    name, found = draft.file_vector(label, path, fields.where)
    return Bank(name, {EVERY: found.single} if found.single is not None else found.by_layer)
