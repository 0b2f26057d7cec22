"""`interv import`: what it prints and writes, and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from interv.cli import build
from interv.importers import FORMATS
from interv.vectors import read_vectors, save_vectors
from tests.importers.ran import H


def run(*arguments: object) -> Result:
    words = ["import", *(str(one) for one in arguments)]
    return CliRunner().invoke(build(words), words)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vectors").mkdir()
    save_vectors(tmp_path / "vectors/calm.gguf", {1: np.ones(H, np.float32)})
    return tmp_path


def test_a_document_names_files_from_its_own_folder(folder: Path) -> None:
    (folder / "docs").mkdir()
    request = {"vectors": [{"source": "calm.gguf", "scale": 2, "apply": {"generation": "all"}}]}
    (folder / "vectors/request.json").write_text(json.dumps(request))
    result = run("vectors/request.json", "-o", "docs/calm.interv", "--name", "soothe")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "docs/calm.interv: 1 program, 0 vector files from easysteer-v2\n"
    assert Path("docs/calm.interv").read_text() == (
        """\
interv 1
# from 'request.json', an EasySteer spec, version 2

vector calm = "../vectors/calm.gguf"

program soothe {
  steer calm at post_block[1] scale 2 when generated
}
"""
    )
    again = run("vectors/request.json", "-o", "docs/calm.interv")
    assert again.exit_code == 1
    assert again.stderr == (
        "error[E231]: 'docs/calm.interv' exists already\n  = --force replaces it\n\n"
    )


def test_a_root_lets_a_file_name_others(folder: Path) -> None:
    request = {"local_path": "vectors/calm.gguf", "generate_trigger_tokens": [-1]}
    (folder / "requests").mkdir()
    Path("requests/a.json").write_text(json.dumps(request))
    assert "'vectors/calm.gguf' does not exist" in run("requests/a.json", "-o", "a.interv").stderr
    assert run("requests/a.json", "-o", "a.interv", "--root", ".").exit_code == 0
    inside = json.dumps(request | {"local_path": str(folder / "vectors/calm.gguf")})
    Path("requests/b.json").write_text(inside)
    assert "leads out of 'requests'" in run("requests/b.json", "-o", "b.interv").stderr
    assert run("requests/b.json", "-o", "b.interv", "--root", folder).exit_code == 0


def test_a_link_does_not_lead_out(folder: Path) -> None:
    (folder / "requests").mkdir()
    os.symlink(folder / "vectors/calm.gguf", folder / "requests/calm.gguf")
    request = {"local_path": "calm.gguf", "generate_trigger_tokens": [-1]}
    Path("requests/a.json").write_text(json.dumps(request))
    assert (
        "error[E262]: 'calm.gguf' leads out of" in run("requests/a.json", "-o", "a.interv").stderr
    )


def test_arrays_are_written_with_their_layers(folder: Path) -> None:
    rows = {
        layer: np.random.default_rng(layer).normal(size=H).astype(np.float32) for layer in (1, 3)
    }
    module = {
        "vectors": {"post_block": {str(i): [float(x) for x in one] for i, one in rows.items()}},
        "clamps": {"mlp_in": {"1": [{"vector": [1.0] * H, "max": 1}]}},
    }
    Path("module.json").write_text(json.dumps(module))
    refused = run("module.json", "-o", "out.interv", "--family", "qwen3")
    assert (refused.exit_code, Path("out.interv").exists()) == (1, False)
    result = run("module.json", "-o", "out.interv", "--family", "qwen3", "--allow-inexact")
    assert result.exit_code == 0
    assert result.stderr == (
        "warning: not exact: clamps.mlp_in: a clamp at 'mlp_in' is not the same here, for the "
        "input of an MLP is no site of the stream; the clamps there are left out\n"
    )
    assert result.stdout == "out.interv: 1 program, 1 vector file from rhizonymph\n"
    written = read_vectors(Path("out.vectors/base.safetensors"))
    assert written.layers == (1, 3)
    assert all(written.at(i).tobytes() == one.tobytes() for i, one in rows.items())
    assert run("module.json").exit_code == 2


def test_help_has_an_example_of_each_format() -> None:
    text = run("--help").stdout
    assert [name for name in FORMATS if name not in text] == []
    assert text.count("interv import ") == len(FORMATS) - 1


def test_json_is_imported_without_torch(folder: Path) -> None:
    request = {"local_path": "vectors/calm.gguf", "generate_trigger_tokens": [-1]}
    Path("a.json").write_text(json.dumps(request))
    code = (
        "import sys\nfrom interv.cli import build\n"
        "words = ['import', 'a.json', '-o', 'a.interv']\n"
        "build(words)(words, standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'vllm' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
