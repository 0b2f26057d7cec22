"""Directions from the engine's activations against those of Transformers, on the real model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from interv.cli import build
from interv.extract import METHODS, Pair, extract_directions, split_pairs
from interv.extract.activations import read_activations
from interv.extract.job import Job
from interv.extract.tokens import Tokens, Wording, tokenize
from interv.progress import Progress
from interv.vectors import read_vectors
from tests.engine.oracle import Oracle
from tests.tolerances import ENGINE_STREAM

pytestmark = pytest.mark.engine

MOODS = (
    ("glad", "sad"),
    ("happy", "unhappy"),
    ("cheerful", "gloomy"),
    ("delighted", "depressed"),
    ("hopeful", "hopeless"),
    ("proud", "ashamed"),
    ("calm", "afraid"),
    ("grateful", "bitter"),
    ("excited", "bored"),
    ("loved", "lonely"),
)
PAIRS = tuple(
    Pair(f"Today I feel {a}.", f"Today I feel {b}.", None, i) for i, (a, b) in enumerate(MOODS, 1)
)
LAYERS = tuple(range(30))
ANSWERED = (3, 14, 29)


def _keep(kept: dict[int, torch.Tensor], layer: int, *hooked: Any) -> None:
    out = hooked[-1]
    kept[layer] = (out if torch.is_tensor(out) else out[0])[0]


def oracle_streams(
    model: Path, texts: Sequence[Tokens], layers: Sequence[int], position: int | str
) -> np.ndarray:
    """Return the stream leaving each block at a position of each text, [n, L, H]."""
    oracle = Oracle(model)
    rows = []
    for text in texts:
        kept: dict[int, torch.Tensor] = {}
        hooks = [
            oracle.blocks[layer].register_forward_hook(partial(_keep, kept, layer))
            for layer in layers
        ]
        with torch.no_grad():
            oracle.model(torch.tensor([text.ids]))
        for hook in hooks:
            hook.remove()
        place = slice(text.start, text.stop) if position == "mean" else [position]
        rows.append(torch.stack([kept[layer][place].double().mean(0) for layer in layers]))
    return torch.stack(rows).numpy()


def expected(
    model: Path, pairs: Sequence[Pair], layers: Sequence[int], position: int | str
) -> np.ndarray:
    from transformers import AutoTokenizer

    sides = tokenize(pairs, Wording(), AutoTokenizer.from_pretrained(model))
    return np.stack([oracle_streams(model, side, layers, position) for side in sides])


@pytest.fixture(scope="module")
def streams(
    model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[np.ndarray, np.ndarray]:
    """Return the engine's activations [2, N, L, H] at the last token, and the oracle's."""
    folder = str(tmp_path_factory.mktemp("extract"))
    job = Job(str(model_path), PAIRS, "post_block", LAYERS, -1, Wording(), "float32", folder)
    read = read_activations(job, Progress(shown=False))
    assert read.facts["dtype"] == "float32"
    assert read.facts["chat"] is True
    return np.array(read.values), expected(model_path, PAIRS, LAYERS, -1)


def test_activations_are_the_streams_of_transformers(
    streams: tuple[np.ndarray, np.ndarray],
) -> None:
    engine, oracle = streams
    assert engine.shape == oracle.shape == (2, len(PAIRS), 30, 576)
    error = np.linalg.norm(engine - oracle, axis=-1) / np.linalg.norm(oracle, axis=-1)
    assert error.max() < ENGINE_STREAM


@pytest.mark.parametrize("method", METHODS)
def test_directions_of_every_layer_agree(
    streams: tuple[np.ndarray, np.ndarray], method: str
) -> None:
    split = split_pairs(PAIRS, 0.2, 0)
    engine, oracle = (extract_directions(one, LAYERS, split, method) for one in streams)
    for mine, theirs in zip(engine.results, oracle.results, strict=True):
        cosine = mine.direction @ theirs.direction / (mine.norm * theirs.norm)
        assert cosine > 0.999, mine.layer
        assert mine.norm == pytest.approx(theirs.norm, rel=1e-2)
        assert mine.accuracy == theirs.accuracy


def test_the_command_makes_a_file_of_answers(model_path: Path, tmp_path: Path) -> None:
    """The mean over an answer's tokens, some layers, to GGUF; all that it says is written."""
    pairs = [Pair(f"{a} and {b}.", f"{b} and {a}.", f"Say {a}!", 0) for a, b in MOODS[:6]]
    fields = ("prompt", "positive", "negative")
    lines = [json.dumps({name: getattr(pair, name) for name in fields}) for pair in pairs]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    files = {name: tmp_path / name for name in ("p.jsonl", "a.gguf", "a.png")}
    words = ["extract", "-m", model_path, "--pairs", files["p.jsonl"], "-o", files["a.gguf"]]
    words += ["--position", "mean", "--layers", "3, 14, -1", "--dtype", "float32"]
    words += ["--plot", files["a.png"], "--holdout", "0.35"]
    given = [str(word) for word in words]
    result = CliRunner().invoke(build(given), given)
    assert result.exit_code == 0, result.output
    for part in ("4 pairs used, 2 pairs held out", f"written: {files['a.gguf']}", "steer a at"):
        assert part in result.stdout
    assert files["a.png"].read_bytes().startswith(b"\x89PNG")

    found = read_vectors(files["a.gguf"])
    split = split_pairs(pairs, 0.35, 0)
    oracle = expected(model_path, pairs, ANSWERED, "mean")
    wanted = extract_directions(oracle, ANSWERED, split, "mean")
    assert found.layers == ANSWERED
    assert found.hint == model_path.name
    assert found.facts["position"] == "mean"
    for one in wanted.results:
        mine = found.at(one.layer).astype(np.float64)
        assert np.linalg.norm(mine - one.direction) < 1e-2 * one.norm
