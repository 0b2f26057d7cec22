"""Adapters load from every format as the update that their own tool computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from interv.document.spec import AdapterDecl
from interv.vectors import Adapter, Linear, LowRank, is_adapter, load_adapter, read_adapter
from tests.vectors.made import (
    file_name,
    lm_steer_file,
    lm_steer_state,
    loreft_state,
    reft_config,
    reft_folder,
    representation,
)

WIDTH, RANK = 8, 2
# Sums of eight products of float64: a few roundings, whatever their order.
CLOSE = {"rtol": 1e-13, "atol": 1e-12}
LINEAR_NOTE = "the folder names no activation: 'linear', pyreft's default, is taken"
POSITIONS_NOTE = (
    "pyreft edits some positions of the prompt, which the folder does not name: see `when`"
)


def load(path: Path) -> Adapter:
    return load_adapter(AdapterDecl(name="style", path=path.name), path.parent)


def stream(rows: int = 5, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((rows, width)) * 10


def applied(update: LowRank | Linear, h: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Apply an update as its docstring says."""
    if isinstance(update, Linear):
        return h + scale * (h @ update.weight.T + update.bias - h)
    return h + scale * ((h @ update.read.T + update.bias) @ update.write)


def loreft(state: dict[str, torch.Tensor], h: np.ndarray) -> np.ndarray:
    """Compute LoReFT as pyreft does: rotate, compare with the learned source, rotate back."""
    base, rotation = torch.from_numpy(h), state["rotate_layer"].double()
    source = torch.nn.functional.linear(base, state["weight"].double(), state["bias"].double())
    return (base + torch.matmul(source - base @ rotation, rotation.T)).numpy()


def lm_steer(state: dict[str, torch.Tensor], h: np.ndarray, scale: float) -> np.ndarray:
    """Compute LM-Steer for one steer value, its epsilon times its value being the scale."""
    first, second = (state[f"projector{i}"].detach()[0].double() for i in (1, 2))
    base = torch.from_numpy(h)
    return (base + scale * base.matmul(first).matmul(second.T)).numpy()


@pytest.mark.parametrize(
    ("component", "site"), [("block_output", "post_block"), ("block_input", "pre_attn")]
)
def test_loreft_from_a_pyreft_folder(tmp_path: Path, component: str, site: str) -> None:
    states = {layer: loreft_state(WIDTH, RANK, layer) for layer in (9, 3)}
    got = load(reft_folder(tmp_path / "style", states, component))
    assert (got.name, got.format, got.kind) == ("style", "pyreft", "low_rank")
    assert (got.layers, got.width, got.rank, got.site) == ((3, 9), WIDTH, RANK, site)
    assert got.notes == (LINEAR_NOTE, POSITIONS_NOTE)
    for layer, state in states.items():
        update = got.at(layer)
        assert isinstance(update, LowRank)
        assert {a.dtype for a in (update.read, update.bias, update.write)} == {np.dtype("f8")}
        exact = state["weight"].double() - state["rotate_layer"].double().T
        assert np.array_equal(update.read, exact.numpy())
        assert np.allclose(applied(update, stream()), loreft(state, stream()), **CLOSE)


def test_config_entries_as_dicts_with_activation_and_prefix(tmp_path: Path) -> None:
    state = loreft_state(WIDTH, RANK)
    folder = tmp_path / "style"
    folder.mkdir()
    prefixed = {f"learned_source.{name}": state[name] for name in ("weight", "bias")}
    torch.save({**prefixed, "rotate_layer": state["rotate_layer"]}, folder / file_name(4))
    item = {"layer": 4, "component": "block_output", "low_rank_dimension": 2}
    config = {"representations": [item | {"intervention": {"act_fn": "linear", "dropout": 0.1}}]}
    (folder / "reft_config.json").write_text(json.dumps(config))
    got = load(folder)
    assert got.layers == (4,)
    assert got.notes == (POSITIONS_NOTE,)
    assert np.allclose(applied(got.at(4), stream()), loreft(state, stream()), **CLOSE)


def test_a_component_by_its_place_in_the_model(tmp_path: Path) -> None:
    """pyvene then saves its default, layer 0, beside it, and a file name without a layer."""
    state = loreft_state(WIDTH, RANK)
    folder = tmp_path / "style"
    folder.mkdir()
    torch.save(state, folder / "intkey_comp_model_layers[11]_output_unit_pos_nunit_1#0.bin")
    config = reft_config([representation(0, "model.layers[11].output")])
    (folder / "config.json").write_text(json.dumps(config))
    got = load(folder)
    assert (got.layers, got.site) == ((11,), "post_block")


def test_one_file_under_a_name_of_its_own_and_an_empty_model(tmp_path: Path) -> None:
    folder = reft_folder(tmp_path / "style", {6: loreft_state(WIDTH, RANK)})
    (folder / file_name(6)).rename(folder / "adapter.bin")
    torch.save({}, folder / "pytorch_model.bin")
    assert load(folder).layers == (6,)


def test_other_files_in_a_pyreft_folder_are_left_alone(tmp_path: Path) -> None:
    folder = reft_folder(tmp_path / "style", {6: loreft_state(WIDTH, RANK)})
    (folder / "training_args.bin").write_bytes(b"")
    (folder / "README.md").write_text("")
    assert load(folder).layers == (6,)


def test_matrices_that_share_what_is_stored(tmp_path: Path) -> None:
    """A projection reads and writes the same rows, and torch saves them once."""
    rows = torch.linalg.qr(torch.randn(300, 200))[0].T.contiguous()
    torch.save({"read": rows, "write": rows}, tmp_path / "a.pt")
    got = load(tmp_path / "a.pt").at(0)
    assert isinstance(got, LowRank)
    assert np.array_equal(got.read, got.write)


def test_safetensors_in_a_pyreft_folder(tmp_path: Path) -> None:
    state = loreft_state(WIDTH, RANK)
    folder = reft_folder(tmp_path / "style", {6: state})
    digest = load(folder).digest
    contiguous = {name: tensor.contiguous() for name, tensor in state.items()}
    save_torch(contiguous, (folder / file_name(6)).with_suffix(".safetensors"))
    (folder / file_name(6)).unlink()
    got = load(folder)
    assert got.digest == digest
    assert np.allclose(applied(got.at(6), stream()), loreft(state, stream()), **CLOSE)


def test_lm_steer_as_its_training_saves_it(tmp_path: Path) -> None:
    state = lm_steer_state(1, WIDTH, RANK)
    got = load(lm_steer_file(tmp_path / "gpt2.pt", state))
    assert (got.format, got.kind, got.layers, got.rank) == ("lm_steer", "low_rank", None, RANK)
    assert got.site is None
    assert got.notes == (
        "LM-Steer trains it behind the final norm, which is not a site; it names no layers",
        "trained with epsilon 0.001: that is the scale of steer value 1",
    )
    assert not got.at(0).bias.any()
    for layer, scale in ((0, 0.001), (29, -3.0)):
        wanted = lm_steer(state, stream(), scale)
        assert np.allclose(applied(got.at(layer), stream(), scale), wanted, **CLOSE)


def test_lm_steer_as_a_dict_of_matrices(tmp_path: Path) -> None:
    state = lm_steer_state(1, WIDTH, RANK)
    torch.save({name: tensor.detach()[0] for name, tensor in state.items()}, tmp_path / "a.pt")
    got = load(tmp_path / "a.pt")
    assert got.notes[1] == "the scale is LM-Steer's epsilon times its steer value"
    stacked = load(lm_steer_file(tmp_path / "b.pt", state))
    assert got.digest == stacked.digest
    assert np.array_equal(got.at(3).read, stacked.at(3).read)


@settings(deadline=None, max_examples=40)
@given(
    width=st.integers(1, 9),
    rank=st.integers(1, 4),
    layers=st.sets(st.integers(0, 200), max_size=4),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_plain_low_rank(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    rank: int,
    layers: set[int],
    bias: bool,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    prefixes = [f"layer.{layer}." for layer in layers] or [""]
    tensors = {}
    for prefix in prefixes:
        for name, shape in (("read", (rank, width)), ("write", (rank, width)), ("bias", (rank,))):
            if bias or name != "bias":
                tensors[prefix + name] = random.standard_normal(shape).astype(np.float32)
    place = tmp_path_factory.mktemp("plain")
    save_file(tensors, place / "a.safetensors")
    torch.save({name: torch.from_numpy(a) for name, a in tensors.items()}, place / "a.pt")
    got, same = load(place / "a.safetensors"), load(place / "a.pt")
    assert (got.kind, got.width, got.rank, got.site) == ("low_rank", width, rank, None)
    assert got.layers == (tuple(sorted(layers)) if layers else None)
    assert (got.digest, got.layers) == (same.digest, same.layers)
    for prefix in prefixes:
        update = got.at(int(prefix.split(".")[1]) if prefix else 12)
        assert np.array_equal(update.read, tensors[f"{prefix}read"].astype(np.float64))
        assert np.array_equal(update.write, tensors[f"{prefix}write"].astype(np.float64))
        wanted = tensors[f"{prefix}bias"] if bias else np.zeros(rank)
        assert np.array_equal(update.bias, wanted.astype(np.float64))


@pytest.mark.parametrize("prefix", ["", "layer.5."])
@pytest.mark.parametrize("bias", [True, False])
def test_plain_linear(tmp_path: Path, prefix: str, bias: bool) -> None:
    random = np.random.default_rng(1)
    weight = random.standard_normal((WIDTH, WIDTH)).astype(np.float32)
    offset = random.standard_normal(WIDTH).astype(np.float32) * bias
    tensors = {f"{prefix}weight": weight} | ({f"{prefix}bias": offset} if bias else {})
    save_file(tensors, tmp_path / "a.safetensors")
    got = load(tmp_path / "a.safetensors")
    assert (got.kind, got.width, got.rank) == ("linear", WIDTH, None)
    assert got.layers == ((5,) if prefix else None)
    h = stream()
    arrays = (torch.from_numpy(array).double() for array in (h, weight, offset))
    # Half of the way from the stream to what the map makes of it.
    wanted = 0.5 * (torch.from_numpy(h) + torch.nn.functional.linear(*arrays))
    assert np.allclose(applied(got.at(5), h, 0.5), wanted.numpy(), **CLOSE)


def test_linear_transport_as_a_dict(tmp_path: Path) -> None:
    weight, bias = torch.randn(WIDTH, WIDTH), torch.randn(WIDTH)
    torch.save({"A_": weight, "B_": bias}, tmp_path / "a.pt")
    got = load(tmp_path / "a.pt")
    assert (got.kind, got.layers) == ("linear", None)
    assert np.array_equal(got.at(0).weight, weight.double().numpy())
    assert np.array_equal(got.at(0).bias, bias.double().numpy())


def test_updates_cannot_be_written_to_and_values_decide_the_digest(tmp_path: Path) -> None:
    first = load(reft_folder(tmp_path / "a", {3: loreft_state(WIDTH, RANK)}))
    other = load(reft_folder(tmp_path / "b", {3: loreft_state(WIDTH, RANK, 1)}))
    moved = load(reft_folder(tmp_path / "c", {4: loreft_state(WIDTH, RANK)}))
    assert len({first.digest, other.digest, moved.digest}) == 3
    with pytest.raises(ValueError, match="read-only"):
        first.at(3).write[0, 0] = 1


def test_adapters_are_told_from_directions(tmp_path: Path) -> None:
    ones, square = np.ones(4, np.float32), np.eye(4, dtype=np.float32)
    low_rank = {"layer.1.read": square, "layer.1.write": square}
    files = {
        "low_rank": (low_rank, True),
        "linear": ({"layer.1.weight": square, "layer.1.bias": ones}, True),
        "one_linear": ({"weight": square}, True),
        "bank": ({"layer.1": ones, "layer.2": ones}, False),
        "rows": ({"weight": np.ones((3, 4), np.float32)}, False),
        "bias": ({"bias": ones}, False),
        "read": ({"read": ones}, False),
    }
    for name, (tensors, wanted) in files.items():
        path = tmp_path / f"{name}.safetensors"
        save_file(tensors, path)
        assert (name, is_adapter(path)) == (name, wanted)
        torch.save({k: torch.from_numpy(v) for k, v in tensors.items()}, tmp_path / f"{name}.pt")
        assert (name, is_adapter(tmp_path / f"{name}.pt")) == (name, wanted)
    assert is_adapter(lm_steer_file(tmp_path / "steer.pt", lm_steer_state(1, 4, 2)))
    assert is_adapter(tmp_path)
    assert not is_adapter(tmp_path / "missing.pt")


def test_read_adapter_outside_a_document(tmp_path: Path) -> None:
    folder = reft_folder(tmp_path / "style", {3: loreft_state(WIDTH, RANK)})
    assert read_adapter(folder).digest == load(folder).digest
