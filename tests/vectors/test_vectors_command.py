"""`interv vectors show` and `convert`, as they are typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from interv.commands.vectors import app
from interv.vectors import read_vectors, save_vectors


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


def test_convert_and_back_is_the_same_file(tmp_path: Path) -> None:
    gguf, safe, back = (tmp_path / n for n in ("a.gguf", "b.safetensors", "c.gguf"))
    save_vectors(gguf, bank(1, 2), "tiny")
    assert run("convert", gguf, safe) == (0, f"{safe}: layers 1, 2, width 2\n", "")
    assert run("convert", safe, back)[0] == 0
    assert back.read_bytes() == gguf.read_bytes()


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


@pytest.mark.parametrize("name", ["joy.gguf", "formal.safetensors", "sea.safetensors"])
def test_shipped_vectors_are_small_and_fit_the_model(name: str) -> None:
    path = Path(__file__).parents[2] / "examples" / "vectors" / name
    vectors = read_vectors(path)
    assert path.stat().st_size < 100_000
    assert vectors.width == 576
    assert vectors.layers == tuple(range(1 if name.endswith("gguf") else 0, 30))
    assert vectors.hint == "SmolLM2-135M-Instruct"
