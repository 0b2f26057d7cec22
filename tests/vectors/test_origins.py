"""Which tool a file most likely comes from, as its own code writes it."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from interv.vectors import read_vectors
from interv.vectors.origins import Origin

ONES = np.ones(4, np.float32)


@dataclass
class SteeringVector:
    """As the `steering-vectors` library defines it, in a module of another name."""

    layer_activations: dict[int, torch.Tensor]
    layer_type: str


def gguf_file(path: Path, *layers: int) -> None:
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_uint32("controlvector.layer_count", len(layers))
    for layer in layers:
        writer.add_tensor(f"direction.{layer}", ONES)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def found(path: Path) -> tuple[str, str] | None:
    origin = read_vectors(path).origin
    return (origin.tool, origin.site) if origin else None


def test_gguf_whose_layers_run_downwards_is_repengs(tmp_path: Path) -> None:
    gguf_file(tmp_path / "a.gguf", 3, 2, 1)
    gguf_file(tmp_path / "b.gguf", 1, 2, 3)
    assert found(tmp_path / "a.gguf") == ("repeng", "post_block")
    assert found(tmp_path / "b.gguf") is None


@pytest.mark.parametrize(
    ("kind", "site"),
    [
        ("decoder_block", "post_block"),
        ("self_attn", "post_attn"),
        ("mlp", "post_block"),
        ("input_layernorm", ""),
    ],
)
def test_an_object_of_steering_vectors(tmp_path: Path, kind: str, site: str) -> None:
    one = SteeringVector({3: torch.ones(4)}, kind)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(one))
    origin = read_vectors(tmp_path / "a.pkl").origin
    said = f"'tests.vectors.test_origins.SteeringVector', its layer_type is '{kind}'"
    assert origin == Origin("steering-vectors", f"an object of class {said}", site)


def test_svec_is_of_activation_steering(tmp_path: Path) -> None:
    held = {"model_type": "llama", "directions": {"1": [1.0, 2.0]}, "explained_variances": {"1": 1}}
    (tmp_path / "a.svec").write_text(json.dumps(held))
    assert found(tmp_path / "a.svec") == ("IBM's activation-steering", "pre_attn")


@pytest.mark.parametrize(
    ("name", "held", "origin"),
    [
        ("a.pt", {"blocks.3.hook_resid_pre": torch.ones(4)}, ("TransformerLens", "pre_attn")),
        (
            "a.pt",
            {"v": torch.ones(4), "hook": "blocks.3.hook_resid_mid"},
            ("TransformerLens", "post_attn"),
        ),
        ("evil_response_avg_diff.pt", torch.ones(5, 4), ("persona_vectors", "post_block")),
        ("vec_layer_13_Llama-2-7b-chat-hf.pt", torch.ones(4), ("CAA", "post_block")),
        ("a.pt", {3: torch.ones(4)}, None),
    ],
)
def test_names_tell_a_tool(
    tmp_path: Path, name: str, held: Any, origin: tuple[str, str] | None
) -> None:
    torch.save(held, tmp_path / name)
    assert found(tmp_path / name) == origin


def test_a_file_that_says_its_tool_is_no_guess(tmp_path: Path) -> None:
    save_file(
        {"layer.3": ONES},
        tmp_path / "evil_response_avg_diff.safetensors",
        {"interv.tool": "interv extract"},
    )
    assert found(tmp_path / "evil_response_avg_diff.safetensors") is None


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("steering_vectors.pt", "steering-vectors"),
        ("steering_vectors.pkl", "steering-vectors"),
        ("repeng.gguf", "repeng"),
        ("repeng.pkl", "repeng"),
    ],
)
def test_files_that_the_libraries_wrote(name: str, tool: str) -> None:
    brought = Path(__file__).parent / "brought"
    got = read_vectors(brought / name)
    assert (got.layers, got.width, got.origin and got.origin.tool) == ((10, 14), 576, tool)
    same = {read_vectors(one).digest for one in brought.glob(f"{Path(name).stem}.*")}
    assert same == {got.digest}


def test_what_is_easily_missed_is_said(tmp_path: Path) -> None:
    held = {"model_type": "llama", "directions": {"1": [1.0, 2.0]}, "explained_variances": {"1": 1}}
    (tmp_path / "a.svec").write_text(json.dumps(held))
    said = "IBM's activation-steering adds layer N at pre_attn[N]"
    assert read_vectors(tmp_path / "a.svec").reading[-1] == said
    one = SteeringVector({3: torch.ones(4)}, "input_layernorm")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(one))
    said = "steering-vectors adds layer N at the output of a norm, which is no site"
    assert read_vectors(tmp_path / "a.pkl").reading[-1] == said
    torch.save(torch.ones(5, 4), tmp_path / "evil_response_avg_diff.pt")
    said = "persona_vectors saves rows by hidden_states: 'rows hidden_states' says so"
    assert read_vectors(tmp_path / "evil_response_avg_diff.pt").reading == (said,)
    assert len(read_vectors(tmp_path / "evil_response_avg_diff.pt", rows="blocks").reading) == 0
