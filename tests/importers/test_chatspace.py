"""chatspace specs and bundles: the document does what their operations say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from interv.document.spec import Cap
from tests.dsl.test_translations import At
from tests.importers.ran import H, L, Row, check, imported, listed, row, written


def source(operation: Mapping[str, Any], h: Row) -> Row:
    """Apply one operation to one stream, as chatspace's formulas have it."""
    v = np.asarray(operation["vector"], np.float64)
    unit = v / np.linalg.norm(v)
    match operation["type"]:
        case "add":
            return h + operation["scale"] * v
        case "ablation":
            return h + (operation["scale"] - 1) * (h @ unit) * unit
    low, high = operation.get("min", -np.inf), operation.get("max", np.inf)
    return h + (np.clip(h @ unit, low, high) - h @ unit) * unit


seeds = st.integers(0, 2**16)
operations = st.one_of(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["add", "ablation"]), "seed": seeds}
        | {"scale": st.sampled_from([0.0, 0.25, 1.0, 1.5, -1.0])}
    ),
    st.fixed_dictionaries(
        {"type": st.just("projection_cap"), "seed": seeds, "max": st.floats(0, 1)},
        optional={"min": st.floats(-1, 0)},
    ),
)


def filled(operation: Mapping[str, Any]) -> dict[str, Any]:
    vector = listed(row(np.random.default_rng(operation["seed"])))
    return {**{name: one for name, one in operation.items() if name != "seed"}, "vector": vector}


@given(st.lists(st.lists(operations, min_size=1, max_size=4), min_size=1, max_size=L - 1))
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_operations_of_a_spec(tmp_path: Path, drawn: list[list[dict[str, Any]]]) -> None:
    layers = {i: [filled(one) for one in listed_] for i, listed_ in enumerate(drawn)}
    layers[L - 1] = [filled({"type": "add", "seed": 0, "scale": 2.0})]
    made = imported(
        tmp_path, {"layers": {str(i): {"operations": found} for i, found in layers.items()}}
    )

    def edited(h: Row, layer: int, at: At) -> Row:
        for operation in layers.get(layer, []):
            h = source(operation, h)
        return h

    check(made, edited)
    assert made.inexact == ()


def test_what_an_ablation_becomes(tmp_path: Path) -> None:
    """`scale` is the part that is kept: 0 removes, 1 leaves, more multiplies, less turns around."""
    vector = listed(row(np.random.default_rng(1)))
    kept = {"0": 0.0, "1": 0.25, "2": 1.0, "3": 1.5, "4": -0.5}
    layers = {i: [{"type": "AblationSpec", "vector": vector, "scale": s}] for i, s in kept.items()}
    made = imported(tmp_path, {"layers": layers})
    assert made.text.partition("program")[2] == (
        """ out {
  ablate remove    at post_block[0]
  ablate remove_2  at post_block[1]  strength 0.75
  apply  amplify   at post_block[3]  scale 0.5
  ablate remove_3  at post_block[4]  strength 1.5 over
}
"""
    )
    assert made.remarks == (
        "operation 0 at layer 2: an ablation of scale 1 keeps all there is; left out",
        "operation 0 at layer 3: an ablation of scale 1.5 multiplies the component; "
        "it is a rank-one update here",
    )


def test_a_serialised_tensor_is_a_vector(tmp_path: Path) -> None:
    v = row(np.random.default_rng(2))
    tensor = {"dtype": "float32", "shape": [H], "data": listed(v)}
    made = imported(tmp_path, {"layers": {"1": [{"kind": "add", "vector": tensor, "scale": 3}]}})
    check(made, lambda h, layer, at: h + 3.0 * v if layer == 1 else h)


def bundle(v: Any, w: Any) -> dict[str, Any]:
    return {
        "vectors": {
            "layer_1/calm": {"vector": v, "layer": 1},
            "layer_2/calm": {"vector": w, "layer": 2},
        },
        "experiments": [
            {"id": "one", "interventions": [{"vector": "layer_1/calm", "cap": 0.5}]},
            {
                "id": "both-0.1",
                "interventions": [
                    {"vector": "layer_2/calm", "cap": 0.1},
                    {"vector": "layer_1/calm", "cap": -0.1},
                ],
            },
        ],
    }


@pytest.mark.parametrize("saved", [False, True], ids=["json", "pt"])
def test_a_bundle_has_a_program_for_each_experiment(tmp_path: Path, saved: bool) -> None:
    v, w = row(np.random.default_rng(3)), row(np.random.default_rng(4))
    if saved:
        torch.save(bundle(torch.from_numpy(v), torch.from_numpy(w)), tmp_path / "bundle.pt")
        made = written(tmp_path / "bundle.pt")
    else:
        made = imported(tmp_path, bundle(listed(v), listed(w)))
    caps = [{1: (v, 0.5)}, {1: (v, -0.1), 2: (w, 0.1)}]

    for i, wanted in enumerate(caps):

        def edited(h: Row, layer: int, at: At, wanted: Any = wanted) -> Row:
            if layer not in wanted:
                return h
            vector, most = wanted[layer]
            return source({"type": "projection_cap", "vector": vector, "max": most}, h)

        check(made, edited, i)
    assert [one.name for one in made.spec.programs] == ["one", "both_0_1"]
    assert made.remarks == ("'both-0.1' is called both_0_1 here",)
    assert all(isinstance(edit, Cap) for one in made.spec.programs for edit in one.statements)


def test_a_spec_that_torch_saved(tmp_path: Path) -> None:
    v = row(np.random.default_rng(5))
    spec = {
        "layers": {2: {"operations": [{"type": "cap", "vector": torch.from_numpy(v), "max": 0.0}]}}
    }
    torch.save(spec, tmp_path / "spec.pt")
    made = written(tmp_path / "spec.pt")
    operation = {"type": "projection_cap", "vector": v, "max": 0.0}
    check(made, lambda h, layer, at: source(operation, h) if layer == 2 else h)
