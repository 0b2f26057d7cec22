"""What the Makefile and its scripts promise, without running an installation."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make(*arguments: str) -> str:
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_default_goal_is_the_help() -> None:
    shown = make()
    assert shown == make("help")
    goals = (
        "help setup model demo test test-slow test-versions lint format typecheck bench gpu clean"
    )
    assert " ".join(line.split()[1] for line in shown.splitlines()) == goals
    assert "  make test          Run the tests\n" in shown


def test_setup_depends_on_what_is_installed() -> None:
    text = (ROOT / "Makefile").read_text()
    rule = next(line for line in text.splitlines() if line.startswith("$(STAMP):"))
    assert rule.split()[1:] == ["pyproject.toml", "$(SHIM)/pyproject.toml", "scripts/setup.sh"]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-1] == "make test"


def test_the_first_recent_python_is_found(tmp_path: Path) -> None:
    """An old interpreter of a good name is passed over."""
    for name, code in (("python3.11", 1), ("python3.12", 0), ("python3", 0)):
        file = tmp_path / name
        file.write_text(f"#!/bin/sh\nexit {code}\n")
        file.chmod(0o755)
    found = subprocess.run(
        ["/bin/sh", "scripts/find-python.sh"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(tmp_path / "python3.12")


def test_no_python_is_said_before_anything_is_made(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "scripts/setup.sh", "", "cpu", str(tmp_path / "venv")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "error: no Python 3.11 or later found; name one with make PYTHON=/path/to/python\n"
    )
    assert not (tmp_path / "venv").exists()
