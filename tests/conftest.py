"""Fixtures that every kind of test may ask for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interv.demo.model import demo_model_path

# Before torch is imported. Workers side by side have a core each; threads that wait for each other
# while somebody else has their core make everything many times as slow.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def model_path() -> Path:
    """Return the folder of SmolLM2-135M-Instruct, made on first use."""
    return demo_model_path(progress=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files instead of comparing"
    )
    parser.addoption(
        "--vllm", action="append", default=[], help="a version of vLLM that tests/versions is about"
    )


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let the processes that a test starts be interrupted.

    Where a whole run ignores the interrupt (`nohup make test &`), its children would inherit that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Return a check of a text against a file, which `--update-golden` writes instead."""

    def check(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return check
