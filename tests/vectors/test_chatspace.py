"""Bundles and steering specs of chatspace, as their own classes and dicts are saved."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interv.errors import IntervError
from interv.vectors import read_vectors, save_vectors
from interv.vectors.chatspace import operations
from interv.vectors.pt_file import load, load_pickle

UNIT = "chatspace makes each direction of a bundle length 1: `unit` does the same"


@dataclass
class AddSpec:
    vector: torch.Tensor
    scale: float = 1.0


@dataclass
class ProjectionCapSpec:
    vector: torch.Tensor
    min: float | None = None
    max: float | None = None


@dataclass
class AblationSpec:
    vector: torch.Tensor
    scale: float = 1.0


@dataclass
class LayerSteeringSpec:
    operations: list[Any] = field(default_factory=list)


@dataclass
class SteeringSpec:
    layers: dict[int, LayerSteeringSpec] = field(default_factory=dict)


# A width that models have: what is told of sizes is told at such.
H = 576


def vector(seed: int, width: int = H) -> torch.Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def bundle(**more: Any) -> dict[str, Any]:
    return {
        "vectors": {
            "poet": {"vector": vector(1).to(torch.bfloat16), "layer": 14},
            "judge": {"vector": vector(2), "layer": 0},
        },
        "experiments": [{"id": "a", "interventions": [{"vector": "poet", "cap": 2.5}]}],
        **more,
    }


def refused(path: Path, key: str | None = None) -> str:
    with pytest.raises(IntervError) as caught:
        read_vectors(path, key)
    return str(caught.value).replace(str(path), path.name)


def test_a_direction_of_a_bundle_has_its_own_layer_alone(tmp_path: Path) -> None:
    path = tmp_path / "role.pt"
    torch.save(bundle(), path)
    got = read_vectors(path, "poet")
    assert (got.layers, got.source, got.notes) == ((14,), "chatspace bundle", (UNIT,))
    assert np.array_equal(got.at(14), vector(1).to(torch.bfloat16).float().numpy())
    assert read_vectors(path, "judge").layers == (0,)
    assert refused(path) == (
        "error[E224]: 'role.pt' holds 2 tensors, and no key says which is meant\n"
        "  = tensors there: poet, judge\n"
        '  = choose one: key "poet"'
    )
    assert refused(path, "poett").endswith("= did you mean 'poet'?")


def test_a_spec_of_one_operation_a_layer_is_a_bank(tmp_path: Path) -> None:
    spec = SteeringSpec(
        {
            12: LayerSteeringSpec([AddSpec(vector(1), 2.7)]),
            3: LayerSteeringSpec([ProjectionCapSpec(vector(2), max=1.5)]),
            20: LayerSteeringSpec([AblationSpec(vector(3), 0.25)]),
        }
    )
    torch.save(spec, tmp_path / "spec.pt")
    (tmp_path / "spec.pkl").write_bytes(pickle.dumps(spec))
    for name in ("spec.pt", "spec.pkl"):
        got = read_vectors(tmp_path / name)
        assert (got.layers, got.source) == ((3, 12, 20), "chatspace steering spec")
        assert np.array_equal(got.at(12), (vector(1) * 2.7).numpy())
        assert np.array_equal(got.at(3), vector(2).numpy())
        assert got.notes == (
            "chatspace adds at layers 12: each direction is its vector times its scale",
            "chatspace caps at layers 3, by bounds that are not part of a direction",
            "chatspace ablates at layers 20, by a scale that is not part of a direction",
        )
    found = operations(load_pickle(tmp_path / "spec.pkl"))
    assert found is not None
    assert [(one.kind, one.layer, dict(one.settings)) for one in found] == [
        ("add", 12, {"scale": 2.7}),
        ("cap", 3, {"min": None, "max": 1.5}),
        ("ablation", 20, {"scale": 0.25}),
    ]


@pytest.mark.parametrize("width", [576, 8192])
def test_a_spec_of_a_real_width_in_an_archive(width: int, tmp_path: Path) -> None:
    # In an archive the arrays are beside the pickle, which is a few words.
    steps = {i: LayerSteeringSpec([AddSpec(vector(i, width))]) for i in range(32)}
    torch.save(SteeringSpec(steps), tmp_path / "spec.pt")
    got = read_vectors(tmp_path / "spec.pt")
    assert got.layers == tuple(range(32))
    assert np.array_equal(got.at(31), vector(31, width).numpy())


def test_rows_of_one_storage_in_an_archive(tmp_path: Path) -> None:
    rows = torch.stack([vector(i) for i in range(32)])
    steps = {i: LayerSteeringSpec([AddSpec(rows[i])]) for i in range(32)}
    torch.save(SteeringSpec(steps), tmp_path / "spec.pt")
    got = read_vectors(tmp_path / "spec.pt")
    assert [np.array_equal(got.at(i), vector(i).numpy()) for i in range(32)] == [True] * 32


def test_several_operations_of_a_layer_need_a_key(tmp_path: Path) -> None:
    steps = [AddSpec(vector(1)), AblationSpec(vector(2), 0.0)]
    spec = SteeringSpec({5: LayerSteeringSpec(steps), 6: LayerSteeringSpec(steps[:1])})
    torch.save(spec, tmp_path / "spec.pt")
    assert "  = tensors there: layer.5.0, layer.5.1, layer.6\n" in refused(tmp_path / "spec.pt")
    got = read_vectors(tmp_path / "spec.pt", "layer.5.1")
    assert got.layers == (5,)
    assert np.array_equal(got.at(5), vector(2).numpy())


def test_the_dict_that_chatspace_sends_and_its_first_specs(tmp_path: Path) -> None:
    """What is sent has scaled already; what came first had a field for each kind."""
    packed = {
        "dtype": "bfloat16",
        "storage_dtype": "float32",
        "shape": [6],
        "data": vector(1).numpy().tobytes(),
        "encoding": "bytes",
    }
    sent = {"layers": {7: {"operations": [{"type": "add", "vector": packed}]}}}
    first = {
        "layers": {
            8: {
                "add": None,
                "projection_cap": {"vector": vector(2), "cap_below": -1.0, "cap_above": None},
                "ablation": None,
            }
        }
    }
    torch.save(sent, tmp_path / "sent.pt")
    torch.save(first, tmp_path / "first.pt")
    got = read_vectors(tmp_path / "sent.pt")
    assert got.layers == (7,)
    assert np.array_equal(got.at(7), vector(1).numpy())
    assert read_vectors(tmp_path / "first.pt").layers == (8,)
    found = operations(load(tmp_path / "first.pt"))
    assert found is not None
    assert [dict(one.settings) for one in found] == [{"min": -1.0, "max": None}]


def test_a_direction_of_a_bundle_keeps_its_layer_when_converted(tmp_path: Path) -> None:
    torch.save(bundle(), tmp_path / "role.pt")
    poet = read_vectors(tmp_path / "role.pt", "poet")
    save_vectors(tmp_path / "poet.gguf", poet)
    assert read_vectors(tmp_path / "poet.gguf").layers == (14,)
    assert read_vectors(tmp_path / "poet.gguf").digest == poet.digest


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (bundle(vectors=[1]), "its 'vectors' are not a dict"),
        (bundle(vectors={"a": {"layer": 1}}), "its vector 'a' has no 'vector' and 'layer'"),
        (
            bundle(vectors={"a": {"vector": vector(1), "layer": -1}}),
            "'-1' is not a layer; layers are counted from 0",
        ),
        (
            bundle(vectors={"a": {"vector": [1.0], "layer": 1}}),
            "it holds a list, not a direction",
        ),
        ({"layers": {1: 3}}, "a layer of its spec is not a dict of operations"),
        (
            {"layers": {1: {"operations": [{"type": "spin", "vector": vector(1)}]}}},
            "its spec has the operation 'spin'; known: add, cap, ablation",
        ),
        (
            {"layers": {1: {"operations": [{"type": "cap", "min": 1.0}]}}},
            "its cap at layer 1 has no vector",
        ),
        (
            {"layers": {1: {"operations": [{"type": "ablation", "vector": vector(1)}]}}},
            "its ablation at layer 1 has no scale",
        ),
        (
            {"layers": {1: {"operations": [{"type": "cap", "vector": vector(1), "min": "x"}]}}},
            "the min of its cap at layer 1 is not a finite number",
        ),
        (
            {"layers": {1: {"operations": [{"type": "add", "vector": {"dtype": "O"}}]}}},
            "a vector of its spec is not packed as numbers",
        ),
        ({"layers": {}}, None),
    ],
)
def test_what_is_not_as_chatspace_writes_it(
    tmp_path: Path, held: dict[str, Any], reason: str | None
) -> None:
    torch.save(held, tmp_path / "a.pt")
    assert refused(tmp_path / "a.pt") == (
        f"error[E222]: 'a.pt' is not a valid pt file\n  = {reason}"
        if reason
        else "error[E223]: 'a.pt' holds no tensors"
    )
