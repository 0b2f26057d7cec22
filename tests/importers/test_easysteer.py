"""EasySteer requests of both versions: the document does what the formulas and triggers say."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.numpy import save_file

from interv.vectors import save_vectors
from tests.dsl.test_translations import At, easysteer_v0, easysteer_v2
from tests.importers.ran import H, L, Row, check, imported, row

RANK = 2
EPSILON = 1e-8
ALL_V0 = {"prefill_trigger_tokens": [-1], "generate_trigger_tokens": [-1]}
FUZZ = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def source(
    algorithm: str, tensors: Mapping[str, Row], scale: float, normalize: bool, h: Row
) -> Row:
    """Apply an algorithm to one stream, as EasySteer's formulas have it."""
    t = {name: np.asarray(values, np.float64) for name, values in tensors.items()}
    match algorithm:
        case "direct":
            moved = h + scale * t["v"]
            return moved * np.linalg.norm(h) / np.linalg.norm(moved) if normalize else moved
        case "erase":
            return h - (h @ t["v"]) / (t["v"] @ t["v"] + EPSILON) * t["v"]
        case "replace":
            return scale * t["v"]
        case "concept_replace":
            return h + (h @ t["v"]) / (t["v"] @ t["v"] + EPSILON) * (t["w"] - t["v"])
        case "linear":
            return scale * (h @ t["weight"].T + t["bias"])
        case "lm_steer":
            return h + scale * ((h @ t["projector1"]) @ t["projector2"].T)
        case "loreft":
            inner = h @ t["learned_source_weight"].T + t["learned_source_bias"]
            return h + scale * (inner - h @ t["rotate_layer"]) @ t["rotate_layer"].T
    raise AssertionError(algorithm)


KINDS = {
    "direct": "direction",
    "erase": "direction",
    "replace": "direction",
    "concept_replace": "concept_pair",
    "linear": "linear",
    "lm_steer": "lowrank",
    "loreft": "reft",
}


def tensors_of(algorithm: str, seed: int, size: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = {
        "linear": {"weight": (H, H), "bias": (H,)},
        "lm_steer": {"projector1": (H, RANK), "projector2": (H, RANK)},
        "loreft": {
            "rotate_layer": (H, RANK),
            "learned_source_weight": (RANK, H),
            "learned_source_bias": (RANK,),
        },
    }.get(algorithm, {"v": (H,), "w": (H,)})
    return {name: np.float32(size) * row(rng, *shape) for name, shape in shapes.items()}


def payload(algorithm: str, tensors: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    kind = KINDS[algorithm]
    named = dict(tensors)
    if kind == "direction":
        named = {f"layer.{i}": tensors["v"] for i in layers}
    if kind == "concept_pair":
        pair = {"h1": tensors["v"], "h2": tensors["w"]}
        named = {f"{one}.layer.{i}": values for one, values in pair.items() for i in layers}
    wire = {
        name: {"shape": list(values.shape), "data": base64.b64encode(values.tobytes()).decode()}
        for name, values in named.items()
    }
    return {"version": 1, "kind": kind, "tensors": wire, "extra": {}, "sha256": "not looked at"}


@pytest.mark.parametrize("scale", [1.0, 0.5, -2.0])
@pytest.mark.parametrize("algorithm", KINDS)
def test_every_algorithm_of_version_2(tmp_path: Path, algorithm: str, scale: float) -> None:
    tensors = tensors_of(algorithm, 1)
    vector = {
        "data": payload(algorithm, tensors, [1, 2]),
        "algorithm": algorithm,
        "scale": scale,
        "layers": [1, 2],
        "apply": {"prompt_positions": [1, -1], "generation_window": [1, None]},
        "source": None,
    }
    made = imported(tmp_path, {"vectors": [vector]})

    def edited(h: Row, layer: int, at: At) -> Row:
        chosen = layer in (1, 2) and easysteer_v2(vector["apply"], at)  # type: ignore[arg-type]
        return source(algorithm, tensors, scale, False, h) if chosen else h

    check(made, edited)
    assert made.inexact == ()
    ignored = scale != 1 and algorithm in ("erase", "concept_replace")
    assert bool(made.remarks) == (ignored or (scale != 1 and algorithm == "linear"))


@pytest.mark.parametrize("algorithm", ["erase", "concept_replace"])
def test_the_epsilon_of_a_short_direction_is_kept(tmp_path: Path, algorithm: str) -> None:
    """At a length of 2e-4 the added 1e-8 takes a fifth of the edit away."""
    tensors = tensors_of(algorithm, 2)
    tensors["v"] = np.float32(2e-4) * tensors["v"] / np.linalg.norm(tensors["v"])
    data = payload(algorithm, tensors, [0])
    made = imported(
        tmp_path, {"vectors": [{"data": data, "algorithm": algorithm, "apply": {"prompt": "all"}}]}
    )
    (edit,) = made.spec.programs[0].statements
    assert edit.strength == pytest.approx(0.8, abs=1e-6)  # type: ignore[union-attr]

    def edited(h: Row, layer: int, at: At) -> Row:
        return source(algorithm, tensors, 1, False, h) if at.in_prompt and not layer else h

    check(made, edited)


@pytest.mark.parametrize("normalize", [False, True])
def test_a_request_of_version_0(tmp_path: Path, normalize: bool) -> None:
    rng = np.random.default_rng(3)
    bank = {1: row(rng), 2: row(rng), 3: row(rng)}
    save_vectors(tmp_path / "happy.gguf", bank)
    request = {
        "steer_vector_name": "very happy",
        "steer_vector_id": 7,
        "steer_vector_local_path": "happy.gguf|direct",
        "scale": -1.5,
        "target_layers": [2, 3, 0],
        "normalize": normalize,
        "prefill_trigger_positions": [0, -1],
        "prefill_exclude_tokens": [3],
        "generate_trigger_tokens": [1, 4],
        "debug": False,
        "vector_configs": None,
    }
    made = imported(tmp_path, request)

    def edited(h: Row, layer: int, at: At) -> Row:
        if layer not in (2, 3) or not easysteer_v0(request, at):
            return h
        return source("direct", {"v": bank[layer]}, -1.5, normalize, h)

    check(made, edited)
    assert made.spec.vectors[0].path == "happy.gguf"
    assert made.files == {}
    assert made.remarks == (
        "the request: nothing is held at layer 0, which is left out",
        "'very happy' is called very_happy here",
    )


@pytest.mark.parametrize(
    ("algorithm", "scale"), [("linear", 1.0), ("linear", 0.5), ("lm_steer", 3.0)]
)
def test_updates_from_files(tmp_path: Path, algorithm: str, scale: float) -> None:
    import torch

    tensors = tensors_of(algorithm, 4)
    if algorithm == "linear":
        save_file(dict(tensors), tmp_path / "map.safetensors")
        name = "map.safetensors"
    else:
        name = "detox.pt"
        torch.save({key: torch.from_numpy(one) for key, one in tensors.items()}, tmp_path / name)
    request = {
        "local_path": name,
        "algorithm": algorithm,
        "scale": scale,
        "target_layers": [0, 1, 2],
        "generate_trigger_tokens": [-1],
    }
    made = imported(tmp_path, request, name="mapped")

    def edited(h: Row, layer: int, at: At) -> Row:
        chosen = layer < 3 and not at.in_prompt
        return source(algorithm, tensors, scale, False, h) if chosen else h

    check(made, edited)
    assert len(made.files) == (scale == 0.5)
    assert made.spec.programs[0].name == "mapped"


triggers = st.fixed_dictionaries(
    {},
    optional={
        "prefill_trigger_tokens": st.lists(st.integers(-1, 5), max_size=3),
        "prefill_trigger_positions": st.lists(st.integers(-5, 5), max_size=6),
        "prefill_exclude_tokens": st.lists(st.integers(-1, 5), max_size=2),
        "prefill_exclude_positions": st.lists(st.integers(-5, 5), max_size=6),
        "generate_trigger_tokens": st.lists(st.integers(-1, 5), max_size=2),
    },
)


@given(st.lists(triggers, min_size=1, max_size=3), st.sampled_from(["priority", "sequential"]))
@FUZZ
def test_several_vectors_of_version_0(
    tmp_path: Path, configs: list[dict[str, Any]], policy: str
) -> None:
    """The first wins, or each reads what the one before it made."""
    rng = np.random.default_rng(5)
    rows = [row(rng) for _ in configs]
    for i, values in enumerate(rows):
        save_vectors(tmp_path / f"v{i}.safetensors", {1: values, 2: values})
    vectors = [
        {"path": f"v{i}.safetensors", "scale": 1.5, "normalize": True, **one}
        for i, one in enumerate([ALL_V0, *configs[1:]] if len(configs) > 1 else [ALL_V0])
    ]
    vectors[0] |= configs[0] | {"generate_trigger_tokens": [-1]}
    made = imported(tmp_path, {"vector_configs": vectors, "conflict_resolution": policy})

    def edited(h: Row, layer: int, at: At) -> Row:
        if layer not in (1, 2):
            return h
        for fields, values in zip(vectors, rows, strict=True):
            if easysteer_v0(fields, at):
                h = source("direct", {"v": values}, 1.5, True, h)
                if policy == "priority":
                    return h
        return h

    check(made, edited)


windows = st.one_of(
    st.tuples(st.integers(0, 4), st.one_of(st.none(), st.integers(5, 8))),
    st.tuples(st.integers(-6, -3), st.one_of(st.none(), st.integers(-2, -1), st.integers(2, 6))),
)
lists = st.lists(st.integers(-6, 8), min_size=1, max_size=5)
ids = st.lists(st.integers(0, 5), min_size=1, max_size=3)
steps = st.lists(st.integers(0, 5), min_size=1, max_size=4)
step_windows = st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(4, 6)))


def apply_fields(prefix: str) -> dict[str, st.SearchStrategy[Any]]:
    return {
        f"{prefix}prompt_tokens": ids,
        f"{prefix}prompt_positions": lists,
        f"{prefix}prompt_window": windows,
        f"{prefix}generation_tokens": ids,
        f"{prefix}generation_positions": steps,
        f"{prefix}generation_window": step_windows,
    }


applies = st.fixed_dictionaries(
    {},
    optional={"prompt": st.just("all"), **apply_fields(""), **apply_fields("exclude_")},
)


@given(applies)
@FUZZ
def test_every_clause_of_version_2(tmp_path: Path, apply: dict[str, Any]) -> None:
    v = row(np.random.default_rng(6))
    vector = {"data": payload("direct", {"v": v}, [1]), "apply": apply}
    clauses = {1: apply, 3: {"prompt": "all"}}
    other = {"data": payload("direct", {"v": v}, [3]), "apply": clauses[3]}
    made = imported(tmp_path, {"vectors": [vector, other]})

    def edited(h: Row, layer: int, at: At) -> Row:
        fields = clauses.get(layer)
        return h + v if fields is not None and easysteer_v2(fields, at) else h

    check(made, edited)


def test_conflict_error_stays_where_vectors_cannot_meet(tmp_path: Path) -> None:
    v = row(np.random.default_rng(7))
    vectors = [
        {"data": payload("direct", {"v": v}, range(L)), "apply": {phase: "all"}}
        for phase in ("prompt", "generation")
    ]
    made = imported(tmp_path, {"vectors": vectors, "conflict": "error"})
    assert made.spec.programs[0].conflict == "error"
    check(made, lambda h, layer, at: h + v)
