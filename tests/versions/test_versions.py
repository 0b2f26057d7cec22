"""Another vLLM answers as the one that is installed here does: `make test-versions`."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import interv
from tests.repo.files import ROOT
from tests.tolerances import ENGINE_LOGPROB
from tests.versions.answers import Answers
from tests.versions.conftest import MINUTES, answered
from tests.versions.served import PROMPTS, chat, completion, plain_answers, refusal, serving

pytestmark = pytest.mark.engine

# Attention on a CPU takes blocks of multiples of 16 tokens up to 0.28, of 32 from 0.29 on.
SMALLER_BLOCKS = ("0.26.", "0.27.", "0.28.")
EDITED = ("--intervention", str(ROOT / "examples" / "gloom.interv"))


@pytest.fixture(scope="session")
def found(other: Path, model_path: Path) -> Answers:
    version = other.parents[1].name
    blocks = [16, 32] if version.startswith(SMALLER_BLOCKS) else [32]
    answers = answered(other, model_path, blocks)
    assert answers.vllm == version
    return answers


def test_every_example_answers_the_same(wanted: Answers, found: Answers) -> None:
    assert found.ids == wanted.ids
    assert len({str(ids) for ids in wanted.ids.values()}) > len(wanted.ids) // 2
    for name, logprobs in wanted.logprobs.items():
        assert np.abs(np.subtract(found.logprobs[name], logprobs)).max() < ENGINE_LOGPROB, name


def test_reports_say_the_same(wanted: Answers, found: Answers) -> None:
    assert found.reports == wanted.reports


def test_the_same_tokens_come_from_the_prefix_cache(wanted: Answers, found: Answers) -> None:
    assert found.cached == wanted.cached
    assert len(set(wanted.cached)) > 1


def test_captured_rows_are_the_same(wanted: Answers, found: Answers) -> None:
    assert found.positions == wanted.positions
    np.testing.assert_allclose(found.norms, wanted.norms, rtol=1e-4)


def test_compressed_requests_answer_the_same(wanted: Answers, found: Answers) -> None:
    ((own, expected),) = wanted.compressed.items()
    assert expected.compactions > 5
    assert expected.wrong == []
    for size, compressed in found.compressed.items():
        # Whole blocks are given back, so how many tokens' room that is goes by their size.
        room = (expected if size == own else compressed).freed_tokens
        each = expected.freed_bytes // expected.freed_tokens
        assert compressed == replace(expected, freed_tokens=room, freed_bytes=room * each), size
        assert compressed.freed_tokens % int(size) == 0 < compressed.freed_tokens


def test_installed_alone_it_changes_no_server(
    other: Path, model_path: Path, tmp_path: Path
) -> None:
    with serving(other, model_path, tmp_path, plugins="none") as url:
        stock = plain_answers(url)
    with serving(other, model_path, tmp_path) as url:
        assert plain_answers(url) == stock


@pytest.fixture(scope="session")
def said(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return the answers of a server with the vLLM that is installed here."""
    folder = tmp_path_factory.mktemp("here")
    with serving(Path(sys.executable), model_path, folder, EDITED) as url:
        return _said(url)


def _said(url: str) -> dict[str, list[str]]:
    found = {}
    for asked in ("gloom", "gloom*0.5", "off"):
        answers = [completion(url, one, intervention=asked) for one in PROMPTS]
        texts = [one["choices"][0]["text"] for one in answers]
        found[asked] = texts + [chat(url, one, intervention=asked) for one in PROMPTS]
    return found


def test_a_server_with_an_intervention(
    other: Path, model_path: Path, tmp_path: Path, said: dict[str, list[str]]
) -> None:
    with serving(other, model_path, tmp_path, EDITED) as url:
        assert _said(url) == said
        told = completion(url, PROMPTS[0], intervention_report=True)
        assert set(interv.edited_rows(told)) == {"gloom"}
        status, message = refusal(url, intervention="glom")
        assert status == 400
        assert message.startswith("error[E205]: no program is called 'glom'\n")
        with urllib.request.urlopen(f"{url}/metrics") as reply:
            assert 'interv_edited_rows_total{program="gloom"' in reply.read().decode()


# What a seed draws is another version's own: there all samples may end at once, which it rules out.
SEEDED = "tests/engine/test_requests.py::test_every_sample_has_a_report_of_its_own[traced-3]"


def test_engine_tests_pass(other: Path) -> None:
    """Run the tests that are marked for it in the other environment."""
    command = [str(other), "-m", "pytest", "-m", "versions and not slow", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--deselect={SEEDED}", "tests/engine", "tests/kv"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60 * MINUTES,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
