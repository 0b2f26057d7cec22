"""`interv extract` as it is typed, up to where an engine would start; and its plot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from interv.cli import build
from interv.errors import IntervError
from interv.extract import Extraction, LayerResult
from interv.extract.plot import check_plot, save_plot

CONFIG = Path(__file__).parents[2] / "examples" / "models" / "smollm2-135m"
PAIRS = "".join(f'{{"positive": "p{i}", "negative": "n{i}"}}\n' for i in range(6))


def run(*words: object) -> tuple[int, str]:
    given = ["extract", *map(str, words)]
    result = CliRunner().invoke(build(given), given)
    return result.exit_code, result.stderr


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.jsonl").write_text(PAIRS)
    return tmp_path


def refusal(*words: object) -> str:
    code, said = run("-m", CONFIG, "--pairs", "p.jsonl", "-o", "a.gguf", *words)
    assert code == 1
    assert not Path("a.gguf").exists()
    return said


@pytest.mark.usefixtures("here")
def test_a_model_of_which_only_the_config_is_there() -> None:
    assert refusal() == (
        f"error[E546]: the model in '{CONFIG}' has no weights, so it has no activations\n"
        "  = files there: config.json\n\n"
    )


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layers", "30"), "error[E240]: 'smollm2-135m' has no layer 30: it has 30 blocks"),
        (("--position", "2"), "error[E285]: '2' is not a position"),
        (("--template", "x"), "error[E285]: the template 'x' does not hold '{text}' once"),
        (("--no-chat", "--system", "x"), "error[E285]: '--system' says nothing with --no-chat"),
        (("--site", "post_attn"), "error[E287]: 'a.gguf': a GGUF control vector has no place"),
        (("-o", "a.bin"), "error[E221]: 'a.bin' cannot be written by its suffix '.bin'"),
        (("--positive", "x"), "error[E285]: the texts are either in --pairs, or in --positive"),
        (("-m", "nowhere/at/all"), "error[E530]: no model 'nowhere/at/all'"),
        (("--pairs", "no.jsonl"), "error[E280]: 'no.jsonl' cannot be read: No such file"),
    ],
)
def test_what_is_wrong_is_said_before_an_engine_starts(
    words: tuple[str, ...], message: str
) -> None:
    assert refusal(*words).startswith(message)


def test_pairs_and_plots_are_checked_before_an_engine_starts(here: Path) -> None:
    """The folder has a file of weights, so that all would be ready to start."""
    (here / "m").mkdir()
    (here / "m" / "config.json").write_text((CONFIG / "config.json").read_text())
    (here / "m" / "model.safetensors").write_bytes(b"")
    assert refusal("-m", "m", "--plot", "a.jpg") == (
        "error[E221]: 'a.jpg' cannot be written: a plot is a .png file\n\n"
    )
    assert refusal("-m", "m", "--plot", "no/a.png").startswith("error[E232]: 'no/a.png' cannot")
    assert refusal("-m", "m", "--plot", "a.png", "--holdout", "0") == (
        "error[E285]: '--plot' shows held-out texts, and --holdout 0 leaves none\n\n"
    )
    (here / "p.jsonl").write_text(PAIRS + PAIRS.splitlines()[1])
    assert refusal("-m", "m").startswith(
        "error[E284]: the positive of line 7 is the positive of line 2 again"
    )
    (here / "p.jsonl").write_text(PAIRS.splitlines()[1])
    assert refusal("-m", "m").startswith("error[E283]: 1 pairs are too few")


@pytest.mark.usefixtures("here")
def test_help_teaches_by_examples() -> None:
    given = ["extract", "--help"]
    text = CliRunner().invoke(build(given), given).output
    for part in (
        "--pairs mood.jsonl",
        '{"prompt": "How are you?"',
        "--template",
        "mean ",
        "probe ",
    ):
        assert part in text


def held() -> Extraction:
    rng = np.random.default_rng(0)
    results = tuple(
        LayerResult(i, np.ones(4), 0.0, rng.normal(size=5) + i / 5, rng.normal(size=5) - i / 5)
        for i in range(8)
    )
    return Extraction(results, 20, 5)


def test_the_plot_is_small_and_the_same_again(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        save_plot(path, held(), "joy", "post_block")
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert len(first) < 60_000


def test_a_plot_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    check_plot(tmp_path / "a.png", True)
    with pytest.raises(IntervError) as caught:
        save_plot(tmp_path / "a.png", held(), "joy", "post_block")
    assert caught.value.code == "E232"
