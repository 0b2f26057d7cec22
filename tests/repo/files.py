"""What the tests of the repository look at: its own files, and what pyproject.toml says."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]
STAGES = ("interv", "dsl", "passes", "codegen", "runtime")
OTHERS = ("tests", "scripts", "examples", "benchmarks")


def python_files(*folders: str) -> Iterator[Path]:
    """Yield the Python files under these folders of the repository, in order."""
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def text_files() -> Iterator[Path]:
    """Yield everything that people write here, generated and fixed files left out."""
    suffixes = {".py", ".md", ".lark", ".c", ".sh", ".toml", ".interv", ".yaml"}
    for folder in (*STAGES, *OTHERS, "docs", ".ci"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in suffixes or folder == ".ci":
                yield file
    yield from (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))
    yield from (ROOT / name for name in ("Makefile", "pyproject.toml", ".pre-commit-config.yaml"))


def name_of(file: Path) -> str:
    """Return a file's path inside the repository, for messages."""
    return str(file.relative_to(ROOT))
