"""A request of EasySteer version 0: the fields of its `SteerVectorRequest`, as JSON.

    {"steer_vector_name": "happy", "steer_vector_id": 1, "steer_vector_local_path": "happy.gguf",
     "scale": 2.0, "target_layers": [10, 11], "generate_trigger_tokens": [-1]}

Several vectors stand in `vector_configs`, with a `conflict_resolution`.
"""

from __future__ import annotations

from pathlib import Path

from interv.document.spec import Selector
from interv.document.wording import layer_text
from interv.errors import IntervError, raise_all
from interv.importers.draft import Change, Draft
from interv.importers.easysteer import (
    CONFLICTS,
    ROUTER,
    V0_ALGORITHMS,
    Asked,
    Bank,
    Held,
    add_program,
    check_algorithm,
    statements,
)
from interv.importers.fields import LARGEST_LAYER, Fields
from interv.importers.triggers import V0_TRIGGERS, v0_selector
from interv.vectors.words import EVERY

VECTOR = ("scale", "target_layers", *V0_TRIGGERS, "algorithm", "normalize")
PATHS = ("steer_vector_local_path", "local_path", "path")
NAMES = ("steer_vector_name", "name")
IDS = ("steer_vector_id", "steer_vector_int_id", "int_id")
SEVERAL, CONFLICT = "vector_configs", "conflict_resolution"
REQUEST = (*NAMES, *IDS, *PATHS, *VECTOR, "debug", SEVERAL, CONFLICT)


def read(fields: Fields, draft: Draft, name: str) -> None:
    """Add the program of one request.

    Raises E211 for fields that are missing, unknown or of another kind, and what `draft` refuses,
    of all vectors together.
    """
    fields.only(REQUEST)
    policy = fields.choice(CONFLICT, CONFLICTS, "priority")
    vectors = _vectors(fields)
    found: list[tuple[str, Change]] = []
    errors = []
    for one in vectors:
        try:
            found += [(one.where, edit) for edit in _vector(one, draft, name)]
        except IntervError as error:
            errors.append(error)
    raise_all(errors)
    title = next((fields.text(key) for key in NAMES if fields.has(key)), name)
    add_program(draft, draft.options.name or title, found, policy)


def _vectors(fields: Fields) -> list[Fields]:
    if not fields.has(SEVERAL):
        return [Fields(fields.values, "the request")]
    both = [key for key in (*PATHS, *VECTOR) if fields.has(key)]
    # What a request prints where nothing was said of one vector.
    idle = {"scale": 1.0, "algorithm": "direct", "normalize": False}
    both = [key for key in both if key not in idle or fields.values[key] != idle[key]]
    if both:
        raise IntervError(
            "E211",
            f"'{both[0]}' has no meaning beside '{SEVERAL}'",
            notes=("each vector has fields of its own there",),
        )
    vectors = fields.parts(SEVERAL)
    for one in vectors:
        one.only((*PATHS, *VECTOR))
    return vectors


def _vector(fields: Fields, draft: Draft, name: str) -> list[Change]:
    path, algorithm = _source(fields, draft)
    check_algorithm(algorithm, V0_ALGORITHMS, fields.where)
    when = v0_selector(fields)
    if algorithm == ROUTER:
        reason = "a router's logits are no site of the stream"
        draft.cannot(fields.where, f"'{ROUTER}'", reason, "the vector is left out")
        return []
    if when is None:
        draft.say(f"{fields.where}: no trigger selects a token, so it is not applied; left out")
        return []
    layers = fields.whole("target_layers", 0, LARGEST_LAYER)
    held, layers = _load(fields, draft, path, algorithm, layers, when)
    scale = fields.number("scale", 1.0)
    asked = Asked(fields.where, algorithm, scale, layers, fields.flag("normalize"), when)
    return statements(draft, asked, held)


def _source(fields: Fields, draft: Draft) -> tuple[str, str]:
    """Return the path and the algorithm, which the path may name: `happy.gguf|direct`."""
    key = next((key for key in PATHS if fields.has(key)), None)
    if key is None:
        wanted = PATHS[0] if fields.where == "the request" else "path"
        raise IntervError("E211", f"'{wanted}' is missing", notes=(f"in {fields.where}",))
    path, _, suffix = fields.text(key).partition("|")
    algorithm = fields.text("algorithm", "direct")
    if suffix and suffix != algorithm:
        draft.say(f"{fields.where}: the algorithm is the one behind the path's '|'")
    return path, suffix or algorithm


def _load(
    fields: Fields,
    draft: Draft,
    path: str,
    algorithm: str,
    layers: tuple[int, ...] | None,
    when: Selector,
) -> tuple[Held, tuple[int, ...] | None]:
    """Return what a file holds and the layers it is for."""
    wanted, where = Path(path).stem, fields.where
    if algorithm != "direct":
        return draft.read_adapter(wanted, path, where), layers
    name, found = draft.file_vector(wanted, path, where)
    if found.single is None:
        return Bank(name, found.by_layer), layers
    if not layers:
        raise IntervError(
            "E211",
            "'target_layers' is missing",
            notes=(f"in {where}", f"'{path}' holds one direction, which names no layer"),
        )
    if len(layers) > 1:
        rest = layer_text(layers[1:])
        draft.say(f"{where}: one direction is for the first layer named; left out: {rest}")
    return Bank(name, {EVERY: found.single}), layers[:1]
