"""How a file says that it was made: what it says, that it survives, and what `show` makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from interv.commands.vectors import app
from interv.extract import Extraction, LayerResult, Pair, pairs_digest
from interv.extract.job import Job
from interv.extract.provenance import model_digest, provenance
from interv.extract.tokens import Wording
from interv.vectors import read_vectors, save_vectors

FACTS = {"vllm": "1.2", "torch": "3.4", "dtype": "float32", "chat": True}


def extraction() -> Extraction:
    rows = np.array([[3.0, 4.0], [6.0, 8.0]])
    held = np.array([1.0, 2.0])
    results = (
        LayerResult(1, rows[0], 0.0, held, -held, 1.0),
        LayerResult(2, rows[1], 5.0, held, -held),
    )
    return Extraction(results, 8, 2)


def job(model: str, wording: Wording | None = None) -> Job:
    pairs = (Pair("a", "b", None, 1),)
    return Job(model, pairs, "post_block", (1, 2), -1, wording or Wording(), "auto", "")


def test_everything_that_made_it_is_said(tmp_path: Path) -> None:
    model = tmp_path / "tiny"
    model.mkdir()
    (model / "config.json").write_text("{}")
    found = provenance("joy", job(str(model)), "pca", 3, extraction(), FACTS)
    scores = json.loads(found.pop("scores"))
    assert found.pop("tool").startswith("interv extract ")
    assert found == {
        "name": "joy",
        "model": "tiny",
        "model_digest": model_digest(str(model)),
        "pairs": "8 used, 2 held out",
        "pairs_digest": f"sha256:{pairs_digest((Pair('a', 'b'),))}",
        "method": "pca",
        "site": "post_block",
        "position": "-1",
        "seed": "3",
        "chat": "yes",
        "template": "{text}",
        "engine": "vLLM 1.2, torch 3.4, float32",
    }
    assert scores == [
        {"layer": 1, "norm": 5, "accuracy": 1, "separation": 4.24264, "next_cosine": 1},
        {"layer": 2, "norm": 10, "accuracy": 0.5, "separation": 4.24264, "next_cosine": None},
    ]


def test_the_system_message_is_said_where_there_is_one() -> None:
    found = provenance("joy", job("no/model", Wording(system="Hm")), "pca", 0, extraction(), FACTS)
    assert found["system"] == "Hm"
    assert (found["model"], found["model_digest"]) == ("no/model", "unknown")


def test_the_digest_tells_models_apart(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    rows = bytearray(3 << 20)
    digests = set()
    for change in (None, 0, 1 << 10, (3 << 20) - 1):
        if change is not None:
            rows[change] ^= 1
        weights.write_bytes(rows)
        digests.add(model_digest(str(tmp_path)))
    (tmp_path / "config.json").write_text("{ }")
    digests.add(model_digest(str(tmp_path)))
    (tmp_path / "notes.txt").write_text("of no account")
    digests.add(model_digest(str(tmp_path)))
    assert len(digests) == 5
    assert model_digest(str(tmp_path / "config.json")) == model_digest(str(tmp_path))


def shown(path: Path) -> list[str]:
    result = CliRunner().invoke(app, ["show", str(path)])
    assert result.exit_code == 0
    return [line.rstrip() for line in result.stdout.splitlines() if line.strip()]


@pytest.mark.parametrize("suffix", [".gguf", ".safetensors"])
def test_show_tells_it_with_the_scores_of_each_layer(tmp_path: Path, suffix: str) -> None:
    facts = provenance("joy", job("no/model"), "pca", 3, extraction(), FACTS)
    bank = {one.layer: one.direction.astype(np.float32) for one in extraction().results}
    path = tmp_path / f"a{suffix}"
    save_vectors(path, bank, "no/model", facts)
    lines = shown(path)
    assert [line for line in lines if line.startswith(("source", "made"))] == [
        f"source  {facts['tool']}",
        "made    chat: yes",
        "made    engine: vLLM 1.2, torch 3.4, float32",
        "made    method: pca",
        "made    model: no/model",
        "made    model_digest: unknown",
        "made    name: joy",
        "made    pairs: 8 used, 2 held out",
        f"made    pairs_digest: {facts['pairs_digest']}",
        "made    position: -1",
        "made    seed: 3",
        "made    site: post_block",
        "made    template: {text}",
    ]
    assert lines[-4].split() == ["layer", "norm", "accuracy", "separation"]
    assert lines[-2].split() == ["1", "5", "━" * 15, "100%", "4.24"]
    assert lines[-1].split() == ["2", "10", "━" * 30, "50%", "4.24"]


def test_it_survives_conversion_where_there_is_a_place_for_it(tmp_path: Path) -> None:
    bank = {1: np.ones(2, np.float32), 2: np.ones(2, np.float32)}
    first, safe, back, torch = (
        tmp_path / name for name in ("a.gguf", "b.safetensors", "c.gguf", "d.pt")
    )
    save_vectors(first, bank, "tiny", {"tool": "x", "method": "pca"})
    for source, target in ((first, safe), (safe, back)):
        assert CliRunner().invoke(app, ["convert", str(source), str(target)]).exit_code == 0
    assert back.read_bytes() == first.read_bytes()
    result = CliRunner().invoke(app, ["convert", str(back), str(torch)])
    assert result.stderr == ("left out: how the directions were made, which .pt has no place for\n")
    assert dict(read_vectors(torch).facts) == {}


def test_layer_zero_that_is_dropped_does_not_take_it_along(tmp_path: Path) -> None:
    source, target = tmp_path / "a.safetensors", tmp_path / "b.gguf"
    rows = {layer: np.ones(2, np.float32) for layer in (0, 1)}
    save_vectors(source, rows, "tiny", {"method": "pca"})
    CliRunner().invoke(app, ["convert", str(source), str(target), "--drop"])
    assert dict(read_vectors(target).facts) == {"method": "pca"}


@pytest.mark.parametrize(
    "scores",
    [
        "[",
        "{}",
        "[1]",
        '[{"layer": "x"}]',
        '[{"layer": 1, "accuracy": 1' + "0" * 400 + "}]",
        "[" * 9999,
        '[{"layer": 1, "accuracy": NaN, "separation": "x"}]',
        '[{"layer": [1]}]',
    ],
)
def test_what_a_stranger_wrote_is_harmless(tmp_path: Path, scores: str) -> None:
    path = tmp_path / "a.safetensors"
    facts = {"scores": scores, "name": "\x1b[2Jx\n" + "y" * 999, "not a name": "z"}
    save_vectors(path, {1: np.array([3, 4], np.float32)}, "tiny", facts)
    lines = shown(path)
    made = [line for line in lines if line.startswith("made")]
    assert made == ["made    name:  [2Jx " + "y" * 194 + "…"]
    assert lines[-1].split()[:2] == ["1", "5"]
