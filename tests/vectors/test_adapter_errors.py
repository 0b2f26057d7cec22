"""Every way in which a pyreft folder can be wrong has its exact message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from interv.document.spec import AdapterDecl
from interv.errors import IntervError, Source, Span
from interv.vectors import load_adapter
from tests.vectors.made import (
    file_name,
    lines,
    lm_steer_state,
    loreft_state,
    reft_config,
    reft_folder,
    refused,
    representation,
)

SQUARE = np.ones((4, 4), np.float32)
FILE = file_name(3)


def folder_with(place: Path, items: list[Any], **more: Any) -> None:
    """Write a folder whose config has these interventions, and a sound file for layer 3."""
    reft_folder(place / "style", {3: loreft_state(8, 2)})
    (place / "style" / "config.json").write_text(json.dumps(reft_config(items, **more)))


def folder_of(place: Path, **changed: torch.Tensor | None) -> None:
    """Write a folder for layer 3, some of whose tensors are changed or, where None, left out."""
    state = {**loreft_state(8, 2), **changed}
    reft_folder(place / "style", {3: {k: v for k, v in state.items() if v is not None}})


def test_points_at_the_declaration(tmp_path: Path) -> None:
    text = 'interv 1\nadapter style = "stile"\n'
    (tmp_path / "style").mkdir()
    save_file({"weight": SQUARE}, tmp_path / "map.safetensors")
    (tmp_path / "notes.txt").write_text("")
    span = Span(Source("a.interv", text), 25, 32)
    with pytest.raises(IntervError) as caught:
        load_adapter(AdapterDecl(name="style", path="stile"), tmp_path, span)
    assert str(caught.value) == (
        "error[E220]: adapter 'style': 'stile' does not exist\n"
        " --> a.interv:2:17\n"
        "  |\n"
        '2 | adapter style = "stile"\n'
        "  |                 ^^^^^^^\n"
        "  |\n"
        "  = folders and adapter files there: map.safetensors, style\n"
        "  = did you mean 'style'?"
    )


def test_missing_place(tmp_path: Path) -> None:
    assert refused(tmp_path, "adapters/style") == lines(
        "E220 'adapters/style' does not exist", "there is no folder 'adapters'"
    )


def test_other_suffixes(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"")
    (tmp_path / "a.npz").write_bytes(b"")
    note = "an adapter is a pyreft folder, or a file: .pt, .safetensors, .pkl, .pickle"
    assert refused(tmp_path, "a.bin") == lines(
        "E221 'a.bin' is not an adapter by its suffix '.bin'",
        note,
        "name the folder that holds it",
    )
    assert refused(tmp_path, "a.npz") == lines(
        "E221 'a.npz' is not an adapter by its suffix '.npz'", note
    )


def test_no_config_and_two(tmp_path: Path) -> None:
    folder_of(tmp_path)
    config = tmp_path / "style" / "config.json"
    (tmp_path / "style" / "reft_config.json").write_text(config.read_text())
    assert refused(tmp_path) == lines(
        "E233 'style' has two configs", "files there: reft_config.json, config.json"
    )
    config.unlink()
    (tmp_path / "style" / "reft_config.json").unlink()
    assert refused(tmp_path) == lines(
        "E233 'style' has no config", "a pyreft folder has one of: reft_config.json, config.json"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "E233 'style/config.json' is not a JSON object"),
        ("[" * 100_000, None),
        ("{", None),
        (
            '{"a": "' + "b" * 2**20 + '"}',
            "E233 'style/config.json' cannot be read: it is larger than 1 MiB",
        ),
    ],
    ids=["list", "deep", "cut", "large"],
)
def test_config_that_is_none(tmp_path: Path, text: str, message: str | None) -> None:
    (tmp_path / "style").mkdir()
    (tmp_path / "style" / "config.json").write_text(text)
    found = refused(tmp_path)
    # The reason is in the words of the JSON reader.
    wanted = message or "E233 'style/config.json' is not JSON"
    assert found == lines(wanted) if message else found.startswith(lines(wanted) + "\n  = ")


@pytest.mark.parametrize("config", [{"hidden_size": 8}, {"representations": []}])
def test_config_without_layers(tmp_path: Path, config: dict[str, Any]) -> None:
    folder_of(tmp_path)
    (tmp_path / "style" / "config.json").write_text(json.dumps(config))
    assert refused(tmp_path) == lines(
        "E233 'style/config.json' names no layers", "it has no representations"
    )


@pytest.mark.parametrize("layer", [None, -1, "3", 2.5, True, 10**6])
def test_layers_that_are_none(tmp_path: Path, layer: object) -> None:
    folder_with(tmp_path, [representation(3), representation(layer)])
    assert refused(tmp_path) == lines("E233 'style/config.json': intervention 1 names no layer")


def test_everything_unfit_in_a_config_in_one_run(tmp_path: Path) -> None:
    bad = {"layer": 4, "component": "block_output", "unit": "h.pos", "act_fn": "silu"}
    folder_with(
        tmp_path,
        [representation(3, "mlp_output"), bad, 7],
        intervention_types=["<class 'pyreft.interventions.SubloreftIntervention'>"],
        act_fn="relu",
    )
    linear = "an update is linear in the stream, so only 'linear' can"
    at = "'style/config.json'"
    assert refused(tmp_path).split("\n\n") == [
        lines(
            f"E234 {at}: intervention 'SubloreftIntervention' cannot be applied",
            "interventions that can: LoreftIntervention, LoreftIntervention_IdentityInit,"
            " NoreftIntervention, DireftIntervention, NodireftIntervention, ConsreftIntervention,"
            " LobireftIntervention",
        ),
        lines(f"E234 {at}: activation 'relu' cannot be applied", linear),
        lines(f"E234 {at}: activation 'silu' cannot be applied", linear),
        lines(
            f"E234 {at}: component 'mlp_output' is not a site of the stream",
            "components that are: block_input (pre_attn), block_output (post_block)",
        ),
        lines(f"E234 {at}: unit 'h.pos' cannot be edited", "unit that can: pos"),
        lines(f"E233 {at}: intervention 2 names no layer"),
    ]


def test_activation_of_an_intervention(tmp_path: Path) -> None:
    item = {"layer": 3, "intervention": {"act_fn": "gelu"}}
    folder_with(tmp_path, [item])
    assert refused(tmp_path) == lines(
        "E234 'style/config.json': activation 'gelu' cannot be applied",
        "an update is linear in the stream, so only 'linear' can",
    )


def test_two_sites_and_one_layer_twice(tmp_path: Path) -> None:
    folder_with(tmp_path, [representation(3), representation(5, "block_input")])
    assert refused(tmp_path) == lines(
        "E234 'style' edits at two sites, and an adapter has one", "sites: post_block, pre_attn"
    )
    text = json.dumps(reft_config([representation(3), representation(3)]))
    (tmp_path / "style" / "config.json").write_text(text)
    assert refused(tmp_path) == lines(
        "E235 'style' has two interventions at layer 3",
        "each is for positions of its own, and an adapter is one of them",
        "name one: 'style#0' or 'style#1'",
        "interv import style writes a document that applies all",
    )


def test_files_that_do_not_match_the_config(tmp_path: Path) -> None:
    folder_with(tmp_path, [representation(3), representation(4), representation(5)])
    note = f"files there: {FILE}"
    assert refused(tmp_path) == "\n\n".join(
        lines(f"E235 'style' has no file for layer {layer}", note) for layer in (4, 5)
    )
    (tmp_path / "style" / "config.json").write_text(json.dumps(reft_config([representation(3)])))
    torch.save(loreft_state(8, 2), tmp_path / "style" / file_name(9))
    assert refused(tmp_path) == lines(
        f"E235 'style/{file_name(9)}' belongs to no intervention of the config"
    )
    (tmp_path / "style" / file_name(9)).unlink()
    save_file({}, tmp_path / "style" / FILE.replace(".bin", ".safetensors"))
    assert refused(tmp_path) == lines(
        "E235 'style' has two files for layer 3",
        f"files there: {FILE}, {FILE.replace('.bin', '.safetensors')}",
    )


def test_weights_of_the_model_are_not_passed_over(tmp_path: Path) -> None:
    folder_of(tmp_path)
    torch.save({"score.weight": torch.ones(2)}, tmp_path / "style" / "pytorch_model.bin")
    assert refused(tmp_path) == lines(
        "E234 'style/pytorch_model.bin' holds weights of the model, which an edit cannot change",
        "load them into the model, and leave the file out here",
    )


def test_tensors_that_are_missing_or_too_many(tmp_path: Path) -> None:
    folder_of(tmp_path / "a", rotate_layer=None)
    folder_of(tmp_path / "b", source_representation=torch.ones(8))
    assert refused(tmp_path / "a") == lines(
        f"E223 'style/{FILE}' holds no tensor 'rotate_layer'", "tensors there: weight, bias"
    )
    assert refused(tmp_path / "b") == lines(
        f"E235 'style/{FILE}' holds 'source_representation', which is no part of LoReFT",
        "LoReFT has: bias, rotate_layer, weight",
    )


def test_one_tensor_under_two_names(tmp_path: Path) -> None:
    folder_of(tmp_path, **{"learned_source.bias": torch.ones(2)})
    assert refused(tmp_path) == lines(
        f"E235 'style/{FILE}' holds a tensor with 'learned_source.' and without",
        "tensors there: weight, bias, rotate_layer, learned_source.bias",
    )


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("weight", [8], "[rank, H]"),
        ("bias", [3], "[rank], here [2]"),
        ("rotate_layer", [2, 8], "[H, rank], here [8, 2]"),
        ("rotate_layer", [8, 3], "[H, rank], here [8, 2]"),
    ],
)
def test_shapes_of_loreft(tmp_path: Path, name: str, shape: list[int], wanted: str) -> None:
    folder_of(tmp_path, **{name: torch.ones(shape)})
    assert refused(tmp_path) == lines(
        f"E227 '{name}' in 'style/{FILE}' has shape {shape}", f"wanted: {wanted}"
    )


def test_sizes_that_the_config_denies(tmp_path: Path) -> None:
    folder_with(tmp_path / "a", [representation(3, rank=4)])
    folder_with(tmp_path / "b", [representation(3)], intervention_dimensions=[16])
    assert refused(tmp_path / "a") == lines(f"E235 'style/{FILE}' has rank 2, its config says 4")
    assert refused(tmp_path / "b") == lines(f"E235 'style/{FILE}' has width 8, its config says 16")


def test_nan_and_zero_name_their_layers_in_one_run(tmp_path: Path) -> None:
    states = {layer: loreft_state(8, 2, layer) for layer in range(5)}
    states[1]["bias"][0] = torch.nan
    states[2]["weight"] = torch.full((2, 8), 1e300, dtype=torch.float64)
    states[3]["rotate_layer"].zero_()
    # W = R and b = 0, as LoReFT of identity starts: it changes nothing.
    states[4] |= {"weight": states[4]["rotate_layer"].T, "bias": torch.zeros(2)}
    reft_folder(tmp_path / "style", states)
    assert refused(tmp_path).split("\n\n") == [
        lines("E225 'style' holds NaN or infinity at layers 1, 2"),
        lines("E226 'style' holds an update of zero at layers 3, 4"),
    ]


def test_no_update_for_a_layer(tmp_path: Path) -> None:
    reft_folder(tmp_path / "style", {3: loreft_state(8, 2), 4: loreft_state(8, 2)})
    got = load_adapter(AdapterDecl(name="calm", path="style"), tmp_path)
    assert (got.has(3), got.has(5)) == (True, False)
    with pytest.raises(IntervError) as caught:
        got.at(5)
    assert str(caught.value) == (
        "error[E229]: adapter 'calm' has no update for layer 5\n  = layers of 'style': 3, 4"
    )


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("pickle-was-run"),))


def test_pickled_code_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path)
    torch.save({"weight": _Evil()}, tmp_path / "style" / FILE)
    torch.save([_Evil(), lm_steer_state(1, 8, 2)], tmp_path / "a.pt")
    reason = "its pickle asks to call '__builtin__.getattr'; nothing in a pickle is ever called"
    assert refused(tmp_path) == lines(f"E222 'style/{FILE}' is not a valid bin file", reason)
    assert refused(tmp_path, "a.pt") == lines("E222 'a.pt' is not a valid pt file", reason)
    assert not (tmp_path / "pickle-was-run").exists()


def test_damaged_files(tmp_path: Path) -> None:
    folder_of(tmp_path)
    (tmp_path / "style" / FILE).write_bytes(b"\x80\x02}q\x00.")
    (tmp_path / "a.safetensors").write_bytes(b"")
    assert refused(tmp_path) == lines(
        f"E222 'style/{FILE}' is not a valid bin file",
        "it is not an archive of torch 1.6 or later; load and save it again with torch",
    )
    assert refused(tmp_path, "a.safetensors").startswith(
        lines("E222 'a.safetensors' is not a valid safetensors file")
    )
