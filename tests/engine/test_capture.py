"""Captured rows are Transformers' own hidden states, whatever the scheduler does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from interv.captures import load_captures
from tests.engine.answer import Answer, Ask
from tests.engine.capturing import Expected, Records, compare, mixture, write_document
from tests.engine.host import EngineHost
from tests.engine.models import HIDDEN_SIZE, tiny_model
from tests.tolerances import CAPTURED

pytestmark = [pytest.mark.engine, pytest.mark.versions]

LIMITS = {"max_model_len": 128, "block_size": 32, "num_gpu_blocks_override": 24}
# A sink that has not stored a few rows by then never will.
PATIENCE_S = 30
COUNT = {"traced": 32, "inductor": 32, "B": 8}


@dataclass
class Rig:
    engine: EngineHost
    expected: Expected
    asks: list[Ask]

    def run(self, asks: list[Ask]) -> list[tuple[Answer, Records]]:
        found: list[list[tuple[Answer, Records]]] = self.engine.call("capture", asks)
        return [one for (one,) in found]

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def check(self, asks: list[Ask]) -> list[tuple[Answer, Records]]:
        """Run requests together and compare every captured row with the oracle's."""
        found = self.run(asks)
        for ask, (answer, records) in zip(asks, found, strict=True):
            assert len(answer.ids) == ask.tokens
            assert compare(records, self.expected.rows(ask, answer.ids), ask) < CAPTURED
        return found


@pytest.fixture(
    scope="module",
    params=[
        "traced",
        pytest.param("B", marks=pytest.mark.slow),
        pytest.param("inductor", marks=pytest.mark.slow),
    ],
)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("capture")
    document, model = write_document(folder), tiny_model("llama")
    with EngineHost(request.param, model, files=[document], **LIMITS) as engine:
        asks = mixture(COUNT[request.param])
        yield Rig(engine, Expected(model, folder), asks)


def test_rows_of_a_mixed_batch_are_the_hidden_states(rig: Rig) -> None:
    rig.check(rig.asks)
    seen = rig.engine.seen()
    assert seen.peak_running > 4


def test_a_request_has_a_row_for_every_token_but_the_last(rig: Rig) -> None:
    ask = Ask(list(range(5, 25)), "every", tokens=4)
    ((answer, records),) = rig.check([ask])
    assert len(records) == 9
    assert all(len(positions) == 20 + 4 - 1 for positions, _ in records.values())
    assert len(answer.ids) == 4


@pytest.mark.parametrize("chunk", [1, 7, pytest.param(64, marks=pytest.mark.slow)])
def test_prompts_in_pieces(rig: Rig, chunk: int) -> None:
    asks = [replace(ask, prompt=(ask.prompt * 40)[:70]) for ask in rig.asks[:4]]
    rig.engine.call("empty_cache")
    rig.engine.call("chunk", chunk)
    try:
        rig.check(asks)
        assert rig.engine.seen().chunks > 70 // chunk - 1
    finally:
        rig.engine.call("chunk", 0)


def test_preempted_requests_have_each_row_once(rig: Rig) -> None:
    longer = [replace(ask, tokens=40) for ask in rig.asks[:16]]
    asks = [replace(one, prompt=(one.prompt * 40)[:60]) for one in longer]
    rig.engine.call("empty_cache")
    rig.check(asks)
    if len(asks) >= 16:
        assert rig.engine.seen().preempted > 0


def test_cached_prompts_are_run_again_from_the_first_captured_token(rig: Rig) -> None:
    prompt = [3 + 7 * i % 500 for i in range(100)]
    rig.engine.call("empty_cache")
    rig.check([Ask(prompt, "plain", 2), Ask(prompt, "off", 2)])
    wanted = {"off": 96, "last": 96, "plain": 96, "every": 0, "edited": 0, "some": 0}
    cached = {}
    for program in wanted:
        ask = Ask(prompt, program, 2, sampling={"prompt_logprobs": None})
        ((answer, _),) = rig.check([ask])
        cached[program] = answer.cached
    assert cached == wanted


def test_capturing_changes_no_answer_and_no_cache(rig: Rig) -> None:
    prompts = [ask.prompt for ask in rig.asks[:6]]
    rig.engine.call("empty_cache")
    plain = rig.engine.alone([Ask(one, "off", 4) for one in prompts])
    rig.engine.call("empty_cache")
    captured = rig.engine.alone([Ask(one, "every", 4) for one in prompts])
    assert captured == plain


def test_an_aborted_request_keeps_the_rows_that_it_had(rig: Rig) -> None:
    asks = [
        Ask(rig.asks[0].prompt, "every", 40, leaves=6),
        Ask(rig.asks[1].prompt, "every", 12),
    ]
    aborted, whole = rig.engine.call("capture", asks)
    assert aborted == []
    ((answer, records),) = whole
    assert compare(records, rig.expected.rows(asks[1], answer.ids), asks[1]) < CAPTURED


def test_samples_of_one_request_have_rows_of_their_own(rig: Rig) -> None:
    ask = Ask(rig.asks[0].prompt, "every", 5, sampling={"n": 3, "temperature": 1.0, "seed": 1})
    (samples,) = rig.engine.call("capture", [ask])
    assert len({tuple(answer.ids) for answer, _ in samples}) > 1
    for answer, records in samples:
        assert compare(records, rig.expected.rows(ask, answer.ids), ask) < CAPTURED


def test_a_sink_of_files_says_where_they_are(rig: Rig) -> None:
    prompt = rig.asks[0].prompt
    (results,) = rig.engine.call("capture_results", [Ask(prompt, "stored", 2)])
    (result,) = results
    assert (result.status, result.sink, result.kind) == ("ok", "acts", "filesystem")
    assert result.rows == len(prompt)
    assert Path(str(result.detail["path"])).is_file()


def test_a_share_of_the_requests_is_drawn(rig: Rig) -> None:
    asks = [Ask([5 + i], "shared", 1) for i in range(40)]
    found = rig.engine.call("capture_results", asks)
    drawn = [one for one in found if one]
    assert all(one.status == "ok" and one.rows == 1 for (one,) in drawn)
    # Of 40 fair draws all but one in a million lie in between.
    assert 5 <= len(drawn) <= 35


def test_held_rows_are_stored_once_they_are_marked(rig: Rig) -> None:
    ask = Ask([5, 6, 7], "kept", 3)
    ((held,), *_) = rig.engine.call("capture_results", [ask, replace(ask, prompt=[9])])
    assert (held.status, held.detail, held.rows) == ("held", {}, 5)
    assert rig.engine.call("mark_last") == [1, 1]
    rig.wait_until(lambda: all(one.status == "ok" for (one,) in rig.engine.call("last_results")))
    ((stored,), *_) = rig.engine.call("last_results")
    path = Path(str(stored.detail["path"]))
    assert load_captures(path.parent, request=stored.request).rows.shape == (5, HIDDEN_SIZE)
    first, _ = rig.engine.call("mark_last")
    assert first == (
        f"error[E566]: no rows of request '{stored.request}' are held\n"
        "  = they are held from its end until the ring needs the place"
    )


def test_an_id_that_two_requests_have_marks_neither(rig: Rig) -> None:
    rig.engine.call("capture_results", [Ask([5, 6, 7], "kept", 3)])
    rig.engine.call("same_id")
    ((held,),) = rig.engine.call("capture_results", [Ask([8, 9], "kept", 3)])
    assert rig.engine.call("mark_last") == [
        f"error[E559]: rows of 2 requests are held that are called '{held.request}'\n"
        "  = mark one of them by its answer or by its handle"
    ]
    assert rig.engine.call("mark_last", "answer") == [1]
    # The other one is the only one now.
    assert rig.engine.call("mark_last") == [1]


def test_an_aborted_request_is_stored_while_no_other_runs(rig: Rig) -> None:
    folder = rig.expected.folder / "acts"
    before = set(folder.glob("*.stored.*.safetensors"))
    rig.engine.call("capture", [Ask([5, 6, 7], "stored", 40, leaves=6)])
    rig.wait_until(lambda: len(set(folder.glob("*.stored.*.safetensors")) - before) == 1)


def test_a_sink_that_fails_is_the_result_of_its_request_only(rig: Rig) -> None:
    folder = rig.expected.folder / "acts"
    away = folder.rename(folder.with_name("away"))
    try:
        ((lost,),) = rig.engine.call("capture_results", [Ask([5, 6, 7], "stored", 2)])
    finally:
        away.rename(folder)
    assert (lost.status, lost.rows) == ("error", 3)
    assert lost.error.startswith(
        f"E552: sink 'acts' could not store what was captured of request '{lost.request}':"
        f" no such file or directory ('{folder}/"
    )
    ((stored,),) = rig.engine.call("capture_results", [Ask([5, 6, 7], "stored", 2)])
    assert stored.status == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tensor", "pipeline"])
def test_ranks_of_a_group_write_each_row_once(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp(kind)
    document, model = write_document(folder), tiny_model("llama")
    # Stock vLLM 0.32 has no asynchronous scheduling of pipelines on a CPU.
    options = {f"{kind}_parallel_size": 2, "async_scheduling": False}
    two = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    with EngineHost("traced", model, [document], env=two, **LIMITS, **options) as engine:
        rig = Rig(engine, Expected(model, folder), mixture(8))
        rig.check(rig.asks)
