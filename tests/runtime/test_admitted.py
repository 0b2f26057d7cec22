"""How a request's choice reaches it: where vLLM takes requests in, and where HTTP answers."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm import SamplingParams

from interv.errors import IntervError
from interv.request.inline import compile_inline
from interv.runtime import compat
from interv.runtime.choice import RESOLVED, Choice, choice_in
from interv.runtime.config import InterventionConfig
from interv.runtime.frontend.admission import Admission
from interv.runtime.frontend.requests import check_model, process_inputs, resolve_for
from tests.runtime.documents import CALM, carried, config

UNKNOWN = """\
error[E205]: no program is called 'clam'
 --> <request>:1:1
  |
1 | clam*1.5
  | ^^^^ unknown program
  |
  = programs here: calm, formal, quiet
  = did you mean 'calm'?"""
NOT_ARMED = """\
error[E504]: this engine has no interventions
  = the request asks for {}
  = start it with --intervention FILE"""


class Processor:
    """What is wrapped of vLLM's `InputProcessor`: it copies the parameters it was given."""

    def __init__(self, additional: object) -> None:
        self.vllm_config = config(additional)

    def original(self, owner: Any, request_id: str, prompt: str, params: Any) -> Any:
        assert owner is self
        return SimpleNamespace(sampling_params=params.clone() if params else None)

    def process(self, params: SamplingParams | None, by_name: bool = False) -> Any:
        if by_name:
            return process_inputs(
                self.original, self, request_id="1", prompt="a prompt", params=params
            )
        return process_inputs(self.original, self, "1", "a prompt", params)


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("asked", ["calm*2", "off", None])
@pytest.mark.parametrize("forged", [None, {}, {"key": "", "terms": [], "seat": (1, 1)}, "off"])
def test_a_request_carries_what_it_resolved_to(
    folder: Path, asked: str | None, forged: object, by_name: bool
) -> None:
    extra = {"intervention": asked, "_interv": forged, "theirs": 1, "intervention_report": True}
    params = SamplingParams(extra_args=dict(extra))
    made = Processor(carried(folder)).process(params, by_name).sampling_params
    expected = Admission(carried(folder), config()).resolve(extra)
    assert expected.report
    assert made.extra_args == {**extra, RESOLVED: expected.plain()}
    assert choice_in(made, Choice()) == expected
    # The caller's own parameters stay as they were.
    assert params.extra_args == extra


def test_a_request_that_says_nothing_carries_the_default(folder: Path) -> None:
    processor = Processor(carried(folder))
    made = processor.process(SamplingParams()).sampling_params
    assert choice_in(made, Choice()) == Choice.of((("calm", 1.0),))
    assert processor.process(None).sampling_params is None


def test_a_refused_request_never_reaches_vllm(folder: Path) -> None:
    def original(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the request was queued")

    params = SamplingParams(extra_args={"intervention": "clam*1.5"})
    with pytest.raises(type(compat.bad_request(""))) as caught:
        process_inputs(original, Processor(carried(folder)), "1", "a prompt", params)
    assert str(caught.value) == UNKNOWN


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ("+".join(["a"] * 2048), 0),
        ("+".join(f"p{i}" for i in range(32)), 24),
        ("interv 1 program p { " + "steer x at post_block[1] " * 200 + "}", 192),
        ("interv 1 program p { " + "steer x at post_block[1] " * 580 + "}", 572),
        ("interv 1 program p { " + "steer x at post_block[1] " * 2600 + "}", 0),
    ],
)
def test_a_small_request_makes_no_large_answer(folder: Path, asked: str, count: int) -> None:
    armed = config(carried(folder, inline=True))
    with pytest.raises(type(compat.bad_request(""))) as caught:
        resolve_for(SimpleNamespace(), armed, {"intervention": asked})
    message = str(caught.value)
    assert len(message) < 9000
    assert message.endswith(f"\n\nand {count} more errors") == (count > 0)


@pytest.mark.parametrize(
    ("extra", "shown"),
    [
        ({"intervention": "calm"}, "'calm'"),
        ({"intervention": "off"}, "'off'"),
        ({"intervention": {"interv": 1}}, "{'interv': 1}"),
        ({"intervention_report": True}, "'intervention_report'"),
    ],
)
def test_an_engine_without_interventions_refuses_them(extra: dict[str, Any], shown: str) -> None:
    with pytest.raises(type(compat.bad_request(""))) as caught:
        resolve_for(SimpleNamespace(), config({"theirs": 1}), extra)
    assert str(caught.value) == NOT_ARMED.format(shown)


@pytest.mark.parametrize("extra", [{}, {"intervention_report": False}, {"theirs": 1}], ids=str)
def test_an_engine_without_interventions_leaves_requests_alone(extra: dict[str, Any]) -> None:
    params = SamplingParams(extra_args=extra)
    assert Processor(None).process(params).sampling_params.extra_args == extra


def test_choices_are_remembered_by_the_engine_that_made_them(folder: Path) -> None:
    owner, armed = SimpleNamespace(), config(carried(folder))
    first = resolve_for(owner, armed, {"intervention": "calm*2"})
    assert resolve_for(owner, armed, {"intervention": "calm*2"}) is first
    assert resolve_for(SimpleNamespace(), armed, {"intervention": "calm*2"}) is not first


def checked(armed: InterventionConfig | None, request: Any) -> str:
    async def original(serving: Any, asked: Any) -> str:
        return "checked"

    processor = SimpleNamespace()
    client = SimpleNamespace(input_processor=processor, vllm_config=config(armed))
    serving = SimpleNamespace(engine_client=client)
    return asyncio.run(check_model(original, serving, request))


def http(extra: dict[str, Any] | None, beams: bool = False) -> SimpleNamespace:
    return SimpleNamespace(vllm_xargs=extra, use_beam_search=beams)


def test_a_request_over_http_is_looked_at_before_it_is_answered(folder: Path) -> None:
    armed = carried(folder)
    assert checked(armed, http({"intervention": "calm"})) == "checked"
    assert checked(armed, http(None, beams=True)) == "checked"
    assert checked(None, http({"theirs": 1})) == "checked"
    assert checked(armed, SimpleNamespace()) == "checked"
    with pytest.raises(type(compat.bad_request(""))) as caught:
        checked(armed, http({"intervention": "clam*1.5"}))
    assert str(caught.value) == UNKNOWN
    with pytest.raises(type(compat.bad_request(""))) as caught:
        checked(None, http({"intervention": "calm"}))
    assert str(caught.value) == NOT_ARMED.format("'calm'")


INLINE = "interv 1 program p { steer v at post_block[1] scale 3 }"


@pytest.mark.parametrize("asked", [INLINE, INLINE.replace("steer v", "steer nope")])
def test_a_program_of_a_request_is_compiled_beside_the_loop(
    folder: Path, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def noted(*args: Any) -> Any:
        threads.append(threading.current_thread())
        return compile_inline(*args)

    monkeypatch.setattr("interv.runtime.frontend.admission.compile_inline", noted)
    owner, armed = SimpleNamespace(), config(carried(folder, inline=True))
    client = SimpleNamespace(input_processor=owner, vllm_config=armed)
    serving = SimpleNamespace(engine_client=client)

    async def original(serving: Any, asked: Any) -> str:
        return "checked"

    check = check_model(original, serving, http({"intervention": asked}))
    if asked == INLINE:
        assert asyncio.run(check) == "checked"
        # What the request is queued with is found, and not compiled again.
        choice = resolve_for(owner, armed, {"intervention": asked})
        assert choice is not None
        assert choice.inline is not None
    else:
        with pytest.raises(type(compat.bad_request(""))) as caught:
            asyncio.run(check)
        assert str(caught.value).startswith("error[E202]: no vector is called 'nope'\n")
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


def test_beam_search_is_refused_with_a_program(folder: Path) -> None:
    with pytest.raises(type(compat.bad_request(""))) as caught:
        checked(carried(folder), http({"intervention": "calm"}, beams=True))
    assert str(caught.value) == (
        "error[E507]: beam search does not carry a request's intervention\n"
        "  = its beams would get the default program\n"
        "  = leave 'use_beam_search' or 'intervention' out of the request"
    )


def test_a_request_that_was_not_admitted_stops_the_engine() -> None:
    params = SamplingParams(extra_args={"intervention": "calm*2"})
    with pytest.raises(IntervError) as caught:
        choice_in(params, Choice())
    assert str(caught.value) == (
        "error[E522]: a request for 'calm*2' reached the engine without being admitted\n"
        "  = its answer would not be what it asks for, so the step is stopped"
    )
    assert choice_in(None, Choice("x")) == Choice("x")
    assert choice_in(SamplingParams(), Choice("x")) == Choice("x")


PROBE = CALM.replace("default calm", "sink rows = memory()\n") + (
    "program probe { capture at post_block[1] tokens prompt[-1] to rows }\ndefault probe\n"
)


@pytest.mark.parametrize("text", [CALM, PROBE])
@pytest.mark.parametrize("asked", ["calm", "off", None])
def test_a_prompt_in_pieces_has_no_interventions(
    folder: Path, asked: str | None, text: str
) -> None:
    processor = Processor(carried(folder, text))
    pieces = {"request_id": "1", "prompt": "a", "params": SamplingParams(), "resumable": True}
    pieces["params"].extra_args = {"intervention": asked}

    def original(owner: Any, **kwargs: Any) -> Any:
        return SimpleNamespace(sampling_params=kwargs["params"].clone())

    if asked == "off":
        assert process_inputs(original, processor, **pieces).sampling_params is not None
        return
    with pytest.raises(type(compat.bad_request(""))) as caught:
        process_inputs(original, processor, **pieces)
    assert str(caught.value) == (
        "error[E508]: a prompt that is sent in pieces has no interventions\n"
        "  = selectors count from the end of the prompt, which is not known yet\n"
        "  = send the whole prompt at once"
    )
