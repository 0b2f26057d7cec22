"""`interv vectors show` and `convert`, as they are typed."""

from __future__ import annotations

import pickle
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from typer.testing import CliRunner

from interv.commands.vectors import app
from interv.extract import pairs_digest, read_pairs
from interv.vectors import LowRank, read_adapter, read_vectors, save_vectors
from tests.vectors.made import loreft_state, reft_folder


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def bank(*layers: int) -> dict[int, np.ndarray]:
    return {layer: np.array([3, 4], np.float32) * layer for layer in layers}


def test_show_tells_what_is_in_a_file(tmp_path: Path) -> None:
    save_vectors(tmp_path / "a.gguf", bank(1, 2, 10), "tiny")
    code, out, err = run("show", tmp_path / "a.gguf")
    assert (code, err) == (0, "")
    digest = read_vectors(tmp_path / "a.gguf").digest
    assert [line.rstrip() for line in out.splitlines() if line.strip()] == [
        f"file    {tmp_path / 'a.gguf'}",
        "format  gguf",
        "model   tiny",
        "holds   layers 1, 2, 10, width 2",
        f"digest  sha256:{digest}",
        " layer   norm",
        " ─────────────────────────────────────────────",
        "     1      5   ━━━",
        "     2     10   ━━━━━━",
        "    10     50   ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━",
    ]


def test_show_of_rows_by_position(tmp_path: Path) -> None:
    save_file({"x": np.ones((3, 2), np.float32)}, tmp_path / "a.safetensors")
    _, out, _ = run("show", tmp_path / "a.safetensors")
    assert "holds   layers 0..2, width 2\n" in out
    assert "note    row i of one tensor [3, H] is layer i\n" in out


def test_show_of_one_direction(tmp_path: Path) -> None:
    save_file(
        {"layer.1": np.ones(4, np.float32), "layer.2": np.ones(4, np.float32)},
        tmp_path / "a.safetensors",
    )
    _, out, _ = run("show", tmp_path / "a.safetensors", "--key", "layer.2")
    assert "holds   one direction for every layer, width 4\n" in out
    assert "     *      2   ━━" in out


def test_show_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    assert run("show", path) == (
        1,
        "",
        f"error[E220]: '{path}' does not exist\n  = vector files in its folder: none\n",
    )


def test_show_of_an_adapter(tmp_path: Path) -> None:
    """‖read‖ is that of W - R, and R's orthonormal columns have the norm √rank."""
    state = loreft_state(8, 2)
    folder = reft_folder(tmp_path / "style", {3: state, 10: state})
    code, out, err = run("show", folder)
    assert (code, err) == (0, "")
    update = read_adapter(folder).at(3)
    assert isinstance(update, LowRank)
    read, bias = (f"{np.linalg.norm(part):.4g}" for part in (update.read, update.bias))
    norms = f"{read:>6}   {bias:>6}     1.414"
    assert [line.rstrip() for line in out.splitlines() if line.strip()] == [
        f"file    {folder}",
        "format  pyreft",
        "kind    low rank 2",
        "holds   layers 3, 10, width 8",
        "site    post_block",
        f"digest  sha256:{read_adapter(folder).digest}",
        "note    the folder names no activation: 'linear', pyreft's default, is taken",
        "note    pyreft edits some positions of the prompt, which the folder does not name: see "
        "`when`",
        " layer   ‖read‖   ‖bias‖   ‖write‖",
        " ─────────────────────────────────",
        f"     3   {norms}",
        f"    10   {norms}",
    ]


def test_show_of_a_linear_map(tmp_path: Path) -> None:
    save_file({"weight": 2 * np.eye(4, dtype=np.float32)}, tmp_path / "a.safetensors")
    _, out, _ = run("show", tmp_path / "a.safetensors")
    assert "kind    linear map\nholds   one update for every layer, width 4\nsite    any\n" in out
    assert "     *          4        0" in out


def test_show_of_a_folder_that_is_no_adapter(tmp_path: Path) -> None:
    note = "a pyreft folder has one of: reft_config.json, config.json"
    message = f"error[E233]: '{tmp_path}' has no config\n  = {note}\n"
    assert run("show", tmp_path) == (1, "", message)


def test_convert_and_back_is_the_same_file(tmp_path: Path) -> None:
    first, safe, back = (tmp_path / n for n in ("a.gguf", "b.safetensors", "c.gguf"))
    save_vectors(first, bank(1, 2), "tiny")
    assert run("convert", first, safe) == (0, f"{safe}: layers 1, 2, width 2\n", "")
    assert run("convert", safe, back)[0] == 0
    assert back.read_bytes() == first.read_bytes()


def test_convert_refuses_to_overwrite(tmp_path: Path) -> None:
    source, target = tmp_path / "a.gguf", tmp_path / "b.safetensors"
    save_vectors(source, bank(1))
    target.write_bytes(b"mine")
    refusal = f"error[E231]: '{target}' exists already\n  = --force replaces it\n"
    assert run("convert", source, target) == (1, "", refusal)
    assert target.read_bytes() == b"mine"
    assert run("convert", source, target, "--force")[0] == 0
    assert read_vectors(target).layers == (1,)


def test_convert_says_what_gguf_cannot_hold(tmp_path: Path) -> None:
    source, target = tmp_path / "a.safetensors", tmp_path / "b.gguf"
    save_vectors(source, bank(0, 1) | {0: np.ones(2, np.float32)})
    code, out, err = run("convert", source, target)
    assert (code, out) == (1, "")
    assert err.startswith("error[E230]: 'b.gguf': a GGUF control vector cannot hold layer 0\n")
    assert not target.exists()
    assert run("convert", source, target, "--drop") == (
        0,
        f"{target}: layers 1, width 2\n",
        "left out: layer 0, which a GGUF control vector cannot hold\n",
    )


def test_show_tells_the_source_and_what_is_rounded(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "e.gguf", "controlvector")
    writer.add_string("controlvector.method", "pca")
    writer.add_tensor("direction.2", np.full(4, 0.1))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    code, out, _ = run("show", tmp_path / "e.gguf")
    assert code == 0
    assert "format  gguf\nsource  EasySteer, method 'pca'\nholds   layers 2, width 4\n" in out
    assert "note    values are rounded to float32\n" in out


def test_show_where_only_ascii_can_be_written(tmp_path: Path) -> None:
    save_vectors(tmp_path / "a.gguf", bank(1, 2))
    folder = reft_folder(tmp_path / "style", {3: loreft_state(8, 2)})
    out, adapter = (
        CliRunner(charset="ascii").invoke(app, ["show", str(path)])
        for path in (tmp_path / "a.gguf", folder)
    )
    assert out.exit_code == adapter.exit_code == 0
    assert out.stdout.isascii()
    assert adapter.stdout.isascii()
    assert f"|    2 |   10 | {'=' * 30}|\n" in out.stdout
    assert "|layer | |read| | |bias| | |write||" in adapter.stdout


def test_convert_to_pt_and_back_is_the_same_file(tmp_path: Path) -> None:
    first, middle, back = (tmp_path / n for n in ("a.gguf", "b.pt", "c.gguf"))
    save_vectors(first, bank(1, 2), "tiny")
    assert run("convert", first, middle) == (0, f"{middle}: layers 1, 2, width 2\n", "")
    assert run("convert", middle, back) == (0, f"{back}: layers 1, 2, width 2\n", "")
    assert back.read_bytes() == first.read_bytes()


def test_convert_refuses_to_round_unless_told_to(tmp_path: Path) -> None:
    source, target = tmp_path / "a.safetensors", tmp_path / "b.gguf"
    save_file({"layer.1": np.full(2, 0.1)}, source)
    assert run("convert", source, target) == (
        1,
        "",
        "error[E230]: 'b.gguf' cannot hold all digits of 'a.safetensors'\n"
        "  = directions are float32; the source has values between its steps\n"
        "  = round them (--drop)\n",
    )
    assert not target.exists()
    assert run("convert", source, target, "--drop") == (
        0,
        f"{target}: layers 1, width 2\n",
        "left out: the digits beyond float32\n",
    )
    assert read_vectors(target).at(1).tolist() == [np.float32(0.1)] * 2


def test_convert_says_what_the_source_leaves_open(tmp_path: Path) -> None:
    source, target = tmp_path / "role.pt", tmp_path / "poet.gguf"
    poet = {"vector": torch.tensor([3.0, 4.0]), "layer": 14}
    torch.save({"vectors": {"poet": poet}, "experiments": []}, source)
    assert run("convert", source, target) == (
        0,
        f"{target}: layers 14, width 2\n",
        "note: chatspace makes each direction of a bundle length 1: `unit` does the same\n",
    )


def test_convert_refuses_adapters(tmp_path: Path) -> None:
    source = tmp_path / "edit.pkl"
    source.write_bytes(pickle.dumps({"A_": np.eye(2), "B_": np.ones(2)}))
    assert run("convert", source, tmp_path / "edit.gguf") == (
        1,
        "",
        f"error[E230]: '{source}' is an adapter; only directions are converted\n",
    )
    assert run("convert", tmp_path, tmp_path / "a.gguf")[0] == 1


@pytest.mark.parametrize("name", ["joy.gguf", "formal.safetensors", "sea.safetensors"])
def test_shipped_vectors_are_small_and_fit_the_model(name: str) -> None:
    path = Path(__file__).parents[2] / "examples" / "vectors" / name
    vectors = read_vectors(path)
    assert path.stat().st_size < 100_000
    assert vectors.width == 576
    assert vectors.layers == tuple(range(1 if name.endswith("gguf") else 0, 30))
    assert vectors.hint == "smollm2-135m-instruct"


@pytest.mark.parametrize("name", ["joy.gguf", "formal.safetensors", "sea.safetensors"])
def test_shipped_vectors_are_made_of_the_pairs_beside_them(name: str) -> None:
    folder = Path(__file__).parents[2] / "examples"
    facts = read_vectors(folder / "vectors" / name).facts
    pairs = read_pairs((folder / "prompts" / name).with_suffix(".jsonl"))
    assert facts["pairs_digest"] == f"sha256:{pairs_digest(pairs)}"
    assert (facts["method"], facts["position"], facts["seed"]) == ("mean", "mean", "0")


def test_convert_gives_rows_no_layers_by_itself(tmp_path: Path) -> None:
    source, target = tmp_path / "evil.npy", tmp_path / "evil.safetensors"
    rows = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    np.save(source, rows)
    assert run("convert", source, target) == (
        1,
        "",
        "error[E238]: 'evil.npy' holds 4 rows, and does not say what they are\n"
        "  = by hidden_states of Transformers, row 0 is the embedding, row i + 1 the output of "
        "block i; such a bank has one row more than the model has blocks\n"
        "  = --from-hidden-states if that is so, --from-blocks if row i is of block i\n",
    )
    assert not target.exists()
    code, out, err = run("convert", source, target, "--from-hidden-states")
    assert (code, out) == (0, f"{target}: layers 0..2, width 2\n")
    assert err == (
        "note: hidden_states[i + 1] is layer i: layers 0..2; that of hidden_states[0], the "
        "embedding, is left out\n"
        "note: most models give hidden_states[3] behind the final norm: then the direction of "
        "layer 2 is of another stream than post_block[2]\n"
    )
    assert [read_vectors(target).at(n).tolist() for n in range(3)] == rows[1:].tolist()
    assert run("convert", source, target, "--from-blocks", "--force")[0] == 0
    assert read_vectors(target).layers == (0, 1, 2, 3)
    assert run("convert", source, target, "--from-blocks", "--from-hidden-states", "--force") == (
        1,
        "",
        "error[E252]: '--from-hidden-states' and '--from-blocks' exclude each other\n",
    )


def test_show_takes_a_row_and_a_numbering(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", W=np.arange(1, 9, dtype=np.float32).reshape(4, 2))
    _, out, _ = run("show", tmp_path / "a.npz", "--key", "W", "--row", "3")
    assert "holds   one direction for every layer, width 2\n" in out
    _, out, _ = run("show", tmp_path / "a.npz", "--rows", "hidden_states")
    assert "holds   layers 0..2, width 2\n" in out
    assert "note    hidden_states[i + 1] is layer i: layers 0..2; that of" in out
