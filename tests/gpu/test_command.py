"""`python -m benchmarks.gpu` itself, without a card: what it says, and what it makes of results."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.page import page
from benchmarks.gpu.parts import PARTS

COMMAND = [sys.executable, "-m", "benchmarks.gpu"]
MACHINE = {"when": "2026-11-28", "python": "3"} | {
    "interv": "0.1.0",
    "vllm": "0.32.0",
    "torch": "2.13.0",
}
CARD = {"name": "NVIDIA H100", "capability": "9.0", "memory_gib": 79.1}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a card is here")
def test_without_a_card_it_says_so_and_runs_nothing(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "--folder", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2
    said = "No CUDA card is here. --standin tries the command itself on the CPU."
    assert " ".join(done.stderr.split()) == said
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_holds_is_not_run_again(tmp_path: Path) -> None:
    names = [part.name for part in PARTS]
    for name in names:
        known = {"part": name, "about": name, "passed": True, "code": 0, "seconds": 1.0}
        (tmp_path / f"{name}.json").write_text(json.dumps(known))
    command = [*COMMAND, "--standin", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{len(names)} parts, 0 failed, 0 left" in " ".join(done.stderr.split())
    result = json.loads((tmp_path / "all.json").read_text())
    assert [part["part"] for part in result["parts"]] == names
    assert (tmp_path / "README.md").read_text() == page(result)


def test_tests_that_parts_name_exist() -> None:
    root = Path(__file__).parents[2]
    text = (root / "tests" / "gpu" / "test_answers.py").read_text()
    named = re.findall(r"^def (test_\w+)", text, re.MULTILINE)
    for part in PARTS:
        assert bool(part.tests) != bool(part.measure)
        assert all((root / one).exists() for one in part.tests if one.endswith(".py"))
        if part.tests[:1] == ("tests/gpu/test_answers.py",):
            assert part.tests[2] in "".join(named)


def test_the_page_says_what_holds_and_shows_what_was_measured() -> None:
    rows = [{"edit": "1 steer", "T": 64, "µs": 1.2345}, {"edit": "1 cap", "T": 64, "µs": 2.0}]
    parts = [
        {"part": "kernels", "about": "every kernel", "passed": False, "code": 1, "seconds": 3.2},
        {"part": "times", "about": "microseconds", "passed": True, "code": 0, "seconds": 9.6}
        | {"rows": rows, "notes": "In a graph."},
    ]
    made = page({"machine": MACHINE, "card": CARD, "parts": parts})
    assert made == (
        "# NVIDIA H100\n\n"
        "2026-11-28, interv 0.1.0, vllm 0.32.0, torch 2.13.0, Python 3."
        " Compute capability 9.0, 79.1 GiB.\n\n"
        "| part | holds | seconds |\n|---|---|--:|\n"
        "| every kernel | **no**: 1 | 3 |\n| microseconds | yes | 10 |\n\n"
        "## Microseconds\n\n"
        "| edit | T | µs |\n|---|--:|--:|\n| 1 steer | 64 | 1.234 |\n| 1 cap | 64 | 2 |\n\n"
        "In a graph.\n"
    )
