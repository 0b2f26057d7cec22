"""Each intervention of pyreft is the update that its own formula says, as torch computes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.parametrizations import orthogonal
from typer.testing import CliRunner

from interv.cli import build
from interv.document.spec import AdapterDecl
from interv.vectors import LowRank, load_adapter
from tests.vectors.made import lines, loreft_state, reft_config, refused, representation

WIDTH, RANK = 8, 2
# Rotations are derived in float32 by torch, in float64 here.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
TYPES = (
    "LoreftIntervention",
    "NoreftIntervention",
    "DireftIntervention",
    "NodireftIntervention",
    "ConsreftIntervention",
    "LobireftIntervention",
)


class Rotate(torch.nn.Module):
    """A rotation [H, r] under the names that pyreft saves."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.nn.init.orthogonal_(torch.empty(WIDTH, RANK)))


class Made(torch.nn.Module):
    """An intervention of a type, as it is after training: nothing in it is zero or the start."""

    def __init__(self, name: str, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.name = name
        self.register_buffer("embed_dim", torch.tensor(WIDTH))
        self.register_buffer("interchange_dim", torch.tensor(WIDTH))
        if name.startswith("No"):
            self.proj_layer = torch.nn.Linear(WIDTH, RANK)
        else:
            self.rotate_layer = orthogonal(Rotate())
            raw = self.rotate_layer.parametrizations.weight.original
            raw.data += torch.randn(WIDTH, RANK).tril(-1)
        if name in ("ConsreftIntervention", "LobireftIntervention"):
            self.learned_source = torch.nn.Parameter(torch.rand(RANK))
        else:
            self.learned_source = torch.nn.Linear(WIDTH, RANK)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Return the edited stream [T, H]."""
        if self.name.startswith("No"):
            written, read = self.proj_layer.weight, self.proj_layer(h)
        else:
            written = self.rotate_layer.weight.T
            read = h @ self.rotate_layer.weight
        source = self.learned_source
        learned = source(h) if isinstance(source, torch.nn.Linear) else source
        if self.name in ("LoreftIntervention", "NoreftIntervention", "ConsreftIntervention"):
            learned = learned - read
        return h + learned @ written


def state_of(made: Made) -> dict[str, torch.Tensor]:
    """Return what pyreft saves: LoReFT its rotation itself, the others all of their state."""
    if made.name != "LoreftIntervention":
        return dict(made.state_dict())
    return {**made.learned_source.state_dict(), "rotate_layer": made.rotate_layer.weight.data}


def folder(place: Path, types: list[str], items: list[Any], **more: Any) -> list[Made]:
    """Write a pyreft folder of these interventions, which may share their layers."""
    place.mkdir(parents=True)
    made, seen = [], []
    for name, item in zip(types, items, strict=True):
        made.append(Made(name, len(made)))
        stem = f"intkey_layer_{item[0]}_comp_block_output_unit_pos_nunit_1#{seen.count(item[0])}"
        seen.append(item[0])
        torch.save(state_of(made[-1]), place / f"{stem}.bin")
    given = [f"<class 'pyreft.interventions.{name}'>" for name in types]
    config = reft_config(items, WIDTH, intervention_types=given, **more)
    (place / "config.json").write_text(json.dumps(config))
    return made


def check(place: Path, path: str, layer: int, made: Made) -> None:
    update = load_adapter(AdapterDecl(name="style", path=path), place).at(layer)
    assert isinstance(update, LowRank)
    h = np.random.default_rng(7).standard_normal((5, WIDTH)) * 10
    got = h + (h @ update.read.T + update.bias) @ update.write
    with torch.no_grad():
        wanted = made(torch.from_numpy(h).float()).double().numpy()
    assert np.abs(wanted - h).max() > 0.1
    np.testing.assert_allclose(got, wanted, **CLOSE)


@pytest.mark.parametrize("name", TYPES)
def test_every_formula(tmp_path: Path, name: str) -> None:
    (made,) = folder(tmp_path / "style", [name], [representation(3)])
    check(tmp_path, "style", 3, made)
    got = load_adapter(AdapterDecl(name="style", path="style"), tmp_path)
    title = {"NoreftIntervention": "NoReFT", "DireftIntervention": "DiReFT"}.get(name)
    assert title is None or got.format == f"pyreft, {title}"


def test_two_interventions_a_layer_are_two_units(tmp_path: Path) -> None:
    """The first half of a config is for the first tokens, as `f7+l7` trains it."""
    items = [representation(layer) for layer in (1, 4, 1, 4)]
    types = ["LoreftIntervention", "LoreftIntervention", "DireftIntervention", "LoreftIntervention"]
    made = folder(tmp_path / "style", types, items)
    for path, layer, index in (("#0", 1, 0), ("#0", 4, 1), ("#1", 1, 2), ("#1", 4, 3)):
        check(tmp_path, f"style{path}", layer, made[index])
    decl = AdapterDecl(name="style", path="style#1")
    assert load_adapter(decl, tmp_path).format == "pyreft, DiReFT and LoReFT"
    assert refused(tmp_path, "style#2") == lines("E842 'style' has no unit #2", "units: #0, #1")


def test_a_folder_whose_name_ends_like_a_unit(tmp_path: Path) -> None:
    (made,) = folder(tmp_path / "style#1", ["LoreftIntervention"], [representation(3)])
    check(tmp_path, "style#1", 3, made)
    check(tmp_path, "style#1#0", 3, made)


def test_what_the_training_script_notes_beside_the_config(tmp_path: Path) -> None:
    folder(tmp_path / "style", ["DireftIntervention"], [representation(3)])
    arguments = {"act_fn": None, "position": "f3+l2", "share_weights": True, "dropout": 0.1}
    (tmp_path / "style/args.json").write_text(json.dumps(arguments))
    got = load_adapter(AdapterDecl(name="style", path="style"), tmp_path)
    assert got.notes == ("trained at f3+l2 of the prompt",)
    (tmp_path / "style/args.json").write_text(json.dumps({**arguments, "act_fn": "relu"}))
    assert refused(tmp_path) == lines(
        "E234 'style/args.json': activation 'relu' cannot be applied",
        "an update is linear in the stream, so only 'linear' can",
    )


def test_types_that_do_not_match_the_interventions(tmp_path: Path) -> None:
    folder(tmp_path / "style", ["LoreftIntervention"] * 2, [representation(1), representation(2)])
    config = json.loads((tmp_path / "style/config.json").read_text())
    config["intervention_types"] = ["A.LoreftIntervention", "A.DireftIntervention", "A.B"]
    (tmp_path / "style/config.json").write_text(json.dumps(config))
    assert refused(tmp_path) == lines(
        "E841 'style/config.json' names 3 intervention types for 2 interventions",
        "types: LoreftIntervention, DireftIntervention, B",
    )


def test_tensors_of_another_kind(tmp_path: Path) -> None:
    (made,) = folder(tmp_path / "style", ["NodireftIntervention"], [representation(3)])
    file = "intkey_layer_3_comp_block_output_unit_pos_nunit_1#0.bin"
    torch.save(loreft_state(WIDTH, RANK), tmp_path / "style" / file)
    assert refused(tmp_path) == lines(
        f"E235 'style/{file}' holds 'rotate_layer', which is no part of NodiReFT",
        "NodiReFT has: bias, proj_layer.bias, proj_layer.weight, weight",
    )
    state = {name: values for name, values in made.state_dict().items() if "proj" not in name}
    torch.save(state, tmp_path / "style" / file)
    assert refused(tmp_path) == lines(
        f"E223 'style/{file}' holds no tensor 'proj_layer.weight'", "tensors there: weight, bias"
    )


def test_a_rotation_of_the_whole_stream(tmp_path: Path) -> None:
    (made,) = folder(tmp_path / "style", ["DireftIntervention"], [representation(3, rank=8)])
    state = made.state_dict()
    state["rotate_layer.parametrizations.weight.original"] = torch.eye(WIDTH)
    state["learned_source.weight"] = torch.ones(WIDTH, WIDTH)
    state["learned_source.bias"] = torch.ones(WIDTH)
    file = "intkey_layer_3_comp_block_output_unit_pos_nunit_1#0.bin"
    torch.save(state, tmp_path / "style" / file)
    assert refused(tmp_path) == lines(
        f"E840 'style/{file}' rotates all 8 dimensions of the stream",
        "its rotation is saved as a matrix exponential, which is not read",
        "save rotate_layer.weight as 'rotate_layer' in place of its parametrization",
    )


def test_show_of_a_folder_with_two_units(tmp_path: Path) -> None:
    items = [representation(layer) for layer in (1, 4, 1, 4)]
    folder(tmp_path / "style", ["LoreftIntervention"] * 4, items)
    words = ["vectors", "show", str(tmp_path / "style")]
    result = CliRunner().invoke(build(words), words)
    assert result.exit_code == 0
    files = [line for line in result.stdout.splitlines() if line.startswith("file")]
    assert files == [f"file    {tmp_path}/style#{unit}" for unit in (0, 1)]
    assert result.stdout.count("holds   layers 1, 4, width 8") == 2
