"""Programs per request: what is refused, what is reported, and more of them than slots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.engine.answer import Ask
from tests.engine.host import EngineHost
from tests.engine.mixture import Expected, expression, mixture, write_document
from tests.engine.models import VOCABULARY, tiny_model
from tests.tolerances import ENGINE_LOGPROB

pytestmark = [pytest.mark.engine, pytest.mark.versions]

SLOTS, SEATS = 4, 16
COUNTED = 90  # requests with reports at once


@dataclass
class Rig:
    engine: EngineHost
    expected: Expected


@pytest.fixture(scope="module", params=["traced", pytest.param("B", marks=pytest.mark.slow)])
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("requests")
    document, model = write_document(folder), tiny_model("llama")
    sizes = {"slots": SLOTS, "max_num_seqs": SEATS}
    with EngineHost(request.param, model, files=[document], **sizes) as engine:
        yield Rig(engine, Expected(model, document))


def test_more_configurations_than_slots(rig: Rig) -> None:
    asks = mixture(12, tokens=6, longest=12)
    alone = rig.engine.alone(asks)
    for order in (asks, asks[::-1]):
        together = rig.engine.answers(order)
        assert together == (alone if order is asks else alone[::-1])
        # Four with slots and the one that is off; it needs none.
        assert rig.engine.seen().peak_running == SLOTS + 1
    for ask, answer in zip(asks, alone, strict=True):
        expected = rig.expected.follow(ask, answer.ids)
        assert answer.ids == expected.ids, ask
        assert answer.distance(expected) < ENGINE_LOGPROB, ask


def test_requests_with_one_configuration_share_its_slot(rig: Rig) -> None:
    # One multiplier written in several ways, beside as many others as there are slots left.
    same = ("cut*0.5", "cut * 0.50", "cut*0.5 + near*0", "cut*5e-1")
    others = [Ask([9, 8, 7], expression(i), 5) for i in range(SLOTS - 1)]
    shared = [Ask([9, 8, 7], same[i % len(same)], 5) for i in range(SEATS - len(others))]
    answers = rig.engine.answers(shared + others)
    assert rig.engine.seen().peak_running == SEATS
    assert all(answer == answers[0] for answer in answers[: len(shared)])
    assert len({str(answer) for answer in answers}) == SLOTS


def test_cancelled_requests_give_their_slots_back(rig: Rig) -> None:
    asks = mixture(SLOTS * 3, tokens=6, longest=12, seed=2)
    alone = rig.engine.alone(asks)
    # The first are cancelled while they run, the next while they wait for a slot.
    doomed = [
        Ask([5] * 4, expression(100 + i), 60, leaves=3 if i < SLOTS else 2)
        for i in range(SLOTS * 2)
    ]
    answers = rig.engine.ask(doomed + [replace(ask, arrives=1) for ask in asks])
    assert answers[: len(doomed)] == [[]] * len(doomed)
    assert [only for (only,) in answers[len(doomed) :]] == alone
    assert rig.engine.answers(asks) == alone


def test_unedited_requests_pass_those_that_wait(rig: Rig) -> None:
    long = [Ask([5] * 4, expression(i), 24) for i in range(SLOTS)]
    waiting = [Ask([6] * 4, expression(50), 2, arrives=1)]
    passing = [Ask([7] * 4, "off", 2, arrives=2)]
    rig.engine.answers(long + waiting + passing)
    # Two steps more for the one that waits: the one that is off has long left by then.
    assert rig.engine.seen().steps == 24 + 2
    assert rig.engine.seen().peak_running == SLOTS + 1


# Programs whose every selected row moves: none has a cap, which may find a row within its bounds.
MOVING = ("steered*0.5", "cut*0.75 + marked*-1.5", "marked + steered", "off")


def reporting(count: int) -> list[Ask]:
    return [
        Ask([*range(3, 9 + i % 7)], MOVING[i % len(MOVING)], 5 + i % 3, report=True)
        for i in range(count)
    ]


@pytest.mark.parametrize("chunk", [0, 2])
def test_a_report_counts_the_rows_of_its_request(rig: Rig, chunk: int) -> None:
    asks = reporting(8)
    beside = [Ask([3, 4, 5], "steered*0.5", 9)] * 3
    rig.engine.call("chunk", chunk)
    for order in (asks + beside, beside + asks[::-1]):
        for ask, answer in zip(order, rig.engine.answers(order), strict=True):
            assert answer.edited == (rig.expected.rows(ask, answer.ids) if ask.report else None)
    rig.engine.call("chunk", 0)


@pytest.mark.parametrize("seed", [None, 3])
def test_every_sample_has_a_report_of_its_own(rig: Rig, seed: int | None) -> None:
    # Half of all tokens end a sample, so that they end at different times.
    stops = list(range(0, VOCABULARY, 2))
    sampling = {"temperature": 1.0, "n": 6, "seed": seed, "stop_token_ids": stops}
    ask = Ask([3, 4, 5], "steered*0.5", 6, report=True, sampling=sampling)
    (samples,) = rig.engine.ask([ask])
    assert len({len(one.ids) for one in samples}) > 1
    # The last prompt token and every generated one but the last, which is never fed.
    assert [one.edited for one in samples] == [
        {"steered": {"post_block[1]": len(one.ids)}} for one in samples
    ]


HERE = "  = programs here: steered, marked, held, cut, near, mixed\n"
REFUSED = {
    "stered*2": (
        "error[E205]: no program is called 'stered'\n"
        " --> <request>:1:1\n"
        "  |\n"
        "1 | stered*2\n"
        "  | ^^^^^^ unknown program\n"
        "  |\n" + HERE + "  = did you mean 'steered'?"
    ),
    "steered + cut**2": (
        "error[E101]: expected a number, found '*'\n"
        " --> <request>:1:15\n"
        "  |\n"
        "1 | steered + cut**2\n"
        "  |               ^ expected a number"
    ),
    "steered*-1 + cut*-1": (
        "error[E405]: program 'cut' caps, ablates, replaces or rotates:"
        " its multiplier cannot be negative\n"
        "  = in the request: steered*-1 + cut*-1\n"
        "  = a strength is not below 0\n"
        "  = multiply programs that only steer, or leave it out"
    ),
    5: (
        'error[E505]: \'intervention\' is a text such as "calm*1.5 + formal" or "off",'
        " not int\n" + HERE.rstrip("\n")
    ),
}


@pytest.mark.parametrize("program", REFUSED)
def test_what_cannot_be_had_is_refused(rig: Rig, program: str | int) -> None:
    assert rig.engine.call("refusal", program) == ("VLLMValidationError", REFUSED[program])


@pytest.mark.parametrize(
    ("flavour", "count", "slots"),
    [("traced", 300, 256), pytest.param("B", 40, 32, marks=pytest.mark.slow)],
)
def test_many_configurations_at_once(tmp_path: Path, flavour: str, count: int, slots: int) -> None:
    document, model = write_document(tmp_path), tiny_model("llama")
    asks = mixture(count, tokens=4, longest=8)
    with EngineHost(flavour, model, files=[document], slots=slots, max_num_seqs=count) as engine:
        together = engine.answers(asks)
        assert engine.seen().peak_running == slots + 1
        assert together == engine.alone(asks)
        # As many as may run have places of their own to count in.
        reports = [ask for ask in reporting(COUNTED * 4 // 3) if ask.program != "off"]
        counted = engine.answers(reports)
        assert engine.seen().peak_running == min(COUNTED, count)
    expected = Expected(model, document)
    for ask, answer in zip(reports, counted, strict=True):
        assert answer.edited == expected.rows(ask, answer.ids)
    for ask, answer in list(zip(asks, together, strict=True))[:: count // 20]:
        meant = expected.follow(ask, answer.ids)
        assert answer.ids == meant.ids, ask
        assert answer.distance(meant) < ENGINE_LOGPROB, ask
