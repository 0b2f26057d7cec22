"""The work that a document makes grows with its statements, not with their square."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from interv.cli import build
from interv.compile import compile_documents
from interv.errors import IntervError
from interv.load import load_text
from interv.model import ModelFacts

H, L = 576, 30
MODEL = ModelFacts("small", "LlamaForCausalLM", H, L)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    save_file({"v": np.ones(H, np.float32)}, folder / "v.safetensors")
    return folder


def calls(run: Callable[[], object]) -> int:
    """Count the calls of Python functions that `run` makes."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def text(statements: int, line: str, conflict: str = "sequential") -> str:
    body = "".join(f"  {line.format(i=i, layer=i % L)}\n" for i in range(statements))
    return f'interv 1\nvector v = "v.safetensors"\nprogram p {{\n  conflict {conflict}\n{body}}}\n'


LINES = {
    "steers that fold": "steer v at post_block[{layer}] scale {i}",
    "steers of one site": "steer v at post_block[3] scale {i}",
    "selectors": "steer v at post_block[{layer}] when prompt[{i}]",
    "selectors of one site": "steer v at post_block[3] when prompt[{i}]",
    "caps of one site": "cap v at post_block[3] in [, {i}]",
    "gates of one site": "steer v at post_block[3] gate v threshold {i}",
    "unknown vectors": "steer w{i} at post_block[3]",
    "empty ranges": "steer v at post_block[3..2]",
}


CASES = [
    *((name, "sequential") for name in LINES),
    ("steers of one site", "priority"),
    ("steers of one site", "sum"),
    ("caps of one site", "error"),
]


@pytest.mark.parametrize(("name", "conflict"), CASES)
def test_twice_the_statements_are_twice_the_work(name: str, conflict: str, root: Path) -> None:
    def run(statements: int) -> Callable[[], None]:
        def compiled() -> None:
            try:
                document = load_text(text(statements, LINES[name], conflict), "a.interv", root)
                compile_documents([document], MODEL)
            except IntervError as error:
                str(error)

        return compiled

    run(100)()  # what is loaded once
    few, many = calls(run(100)), calls(run(400))
    assert many < 5 * few


def test_thousands_of_statements_mean_what_they_say(root: Path) -> None:
    document = load_text(text(3000, "steer v at post_block[{layer}] scale 1"), "a.interv", root)
    made = compile_documents([document], MODEL)
    assert len(made.bundle.sites) == L
    found = [column.alpha for table in made.bundle.sites for column in table.programs["p"]]
    assert found == [100.0] * L


def test_errors_of_a_large_document_are_found_and_told_in_bounds(root: Path) -> None:
    path = root / "many.interv"

    def run(statements: int) -> Callable[[], None]:
        def checked() -> None:
            path.write_text(text(statements, "steer w{i} at post_blok[1] scale 1e99"))
            result = CliRunner().invoke(build(["check"]), ["check", str(path)])
            assert result.exit_code == 1
            assert len(result.stderr) < 40_000

        return checked

    run(200)()
    few, many = calls(run(200)), calls(run(800))
    assert many < 5 * few
