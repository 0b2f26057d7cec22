"""The tests of this folder are about other vLLMs: run where `--vllm VERSION` names some."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from vllm_environment import Unavailable, environment

from interv.cache import cache_folder
from interv.progress import Progress
from tests.repo.files import ROOT
from tests.versions.answers import Answers

MINUTES = 60


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return None if config.getoption("vllm") else True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "other" in metafunc.fixturenames:
        versions = metafunc.config.getoption("vllm")
        metafunc.parametrize("other", versions, indirect=True, scope="session")


@pytest.fixture(scope="session")
def other(request: pytest.FixtureRequest) -> Path:
    """Return the interpreter of an environment with another vLLM, made on first use."""
    try:
        return environment(request.param, cache_folder(), Progress())
    except Unavailable as error:
        pytest.skip(f"no environment for vLLM {request.param}: {error}")


def answered(python: Path, model: Path, blocks: list[int]) -> Answers:
    """Return what the vLLM of an interpreter answers."""
    command = [str(python), "-m", "tests.versions.answers", str(model), *map(str, blocks)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=20 * MINUTES, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return Answers.load(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def wanted(model_path: Path) -> Answers:
    """Return what the vLLM that is installed here answers."""
    return answered(Path(sys.executable), model_path, [32])
