"""What is told of a request reaches the last event of a stream, however its parts are cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from interv.runtime.frontend.answers import Answers
from interv.runtime.frontend.exchange import EXCHANGE, Told, together

TOLD = {"interv": {"joy": {"post_block[1]": 3}}}
HEAD = {"type": "http.response.start", "status": 200}


def chunk(*numbers: int, **more: Any) -> bytes:
    said = {"choices": list(numbers), **more}
    return b"data: " + json.dumps(said, separators=(",", ":")).encode() + b"\n\n"


def answered(parts: Sequence[bytes], kind: bytes, ends: int | None, status: int = 200) -> list[Any]:
    """Return what leaves of an answer whose engine request ends before part `ends`."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        exchange = EXCHANGE.get()
        assert exchange is not None
        told = Told("cmpl-0", [None])
        exchange.prompts.append(told)
        head = [(b"content-type", kind), (b"content-length", b"1")]
        if ends is not None and ends < 0:
            told.note(0, TOLD)
        await send({**HEAD, "status": status, "headers": head})
        for number, part in enumerate(parts):
            if ends == number:
                told.note(0, TOLD)
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Answers(app)({"type": "http", "method": "POST"}, None, send))
    assert EXCHANGE.get() is None
    return sent


def text(sent: list[Any]) -> bytes:
    return b"".join(one.get("body", b"") for one in sent)


DONE = b"data: [DONE]\n\n"
LAST = chunk(2, kv_transfer_params=TOLD)
STREAMS = {
    "told before its last chunk": ([chunk(1), chunk(2), DONE], 1, [chunk(1), LAST, DONE]),
    "told before all": ([chunk(1), chunk(2), DONE], 0, [chunk(1), LAST, DONE]),
    "without an end": ([chunk(1), chunk(2)], 1, [chunk(1), LAST]),
    "in one part": ([chunk(1) + chunk(2) + DONE], 0, [chunk(1), LAST, DONE]),
    "comments": (
        [chunk(1), chunk(2), b": alive\n\n", DONE],
        1,
        [chunk(1), LAST, b": alive\n\n", DONE],
    ),
    "told after its last chunk": (
        [chunk(1), DONE],
        1,
        [chunk(1), chunk(kv_transfer_params=TOLD), DONE],
    ),
    "never told": ([chunk(1), chunk(2), DONE], None, [chunk(1), chunk(2), DONE]),
    "an error": (
        [chunk(1), b'data: {"error":{"code":500}}\n\n', DONE],
        1,
        [chunk(1), b'data: {"error":{"code":500}}\n\n', DONE],
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name: str) -> None:
    parts, ends, expected = STREAMS[name]
    sent = answered(parts, b"text/event-stream; charset=utf-8", ends)
    assert text(sent) == b"".join(expected)
    assert [one.get("more_body", False) for one in sent][-1] is False


def test_chunks_leave_as_they_come_until_all_is_told() -> None:
    parts = [chunk(number) for number in range(5)]
    sent = answered([*parts, DONE], b"text/event-stream", ends=4)
    assert [one["body"] for one in sent[1:5]] == parts[:4]


def test_a_json_answer_has_its_new_length() -> None:
    head, body = answered([b'{"choices":', b"[]}"], b"application/json", ends=-1)
    assert json.loads(body["body"]) == {"choices": [], "kv_transfer_params": TOLD}
    assert dict(head["headers"])[b"content-length"] == str(len(body["body"])).encode()


@pytest.mark.parametrize(
    ("kind", "ends", "status"),
    [(b"text/plain", -1, 200), (b"application/json", None, 200), (b"application/json", -1, 400)],
)
def test_other_answers_are_left_alone(kind: bytes, ends: int | None, status: int) -> None:
    assert text(answered([b'{"choices":[]}'], kind, ends, status)) == b'{"choices":[]}'


def test_several_prompts_and_samples_are_lists() -> None:
    one, two = {"interv": {"a": {}}, "interv_captures": {"handle": "x"}}, {"interv": {"b": {}}}
    assert together([Told("p", [one])]) == one
    assert together([Told("p", [one, None]), Told("q", [two, {"other": 1}])]) == {
        "interv": [{"a": {}}, None, {"b": {}}, None],
        "interv_captures": [{"handle": "x", "sample": 0}, None, None, None],
    }
    assert together([]) == together([Told("p", [{"other": 1}])]) == {}
