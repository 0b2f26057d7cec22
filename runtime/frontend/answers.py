"""What a request tells, on answers over HTTP: in the JSON of one, in the last event of a stream.

Only answers to requests that tell something are touched. Of a stream the events pass as they come
until the engine has told all; from then on, with no more to be computed, one is kept back, so that
the last before `[DONE]`, or of all, can say it.
"""

from __future__ import annotations

import json
from typing import Any

from interv.runtime.frontend.exchange import CARRIED, EXCHANGE, Exchange

_DATA, _DONE, _END = b"data:", b"[DONE]", b"\n\n"


class Answers:
    """The middleware, around all others of the server."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        exchange = Exchange()
        token = EXCHANGE.set(exchange)
        try:
            await self._app(scope, receive, _Answer(exchange, send).send)
        finally:
            EXCHANGE.reset(token)


class _Answer:
    """One answer on its way out."""

    def __init__(self, exchange: Exchange, send: Any) -> None:
        self._exchange, self._send = exchange, send
        self._start: Any = None  # the head of a JSON answer, until its length is known
        self._body = b""  # what is kept back
        self._last = b""  # the last event that has left
        self._streams = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif message["type"] != "http.response.body":
            await self._send(message)
        elif self._start is not None:
            await self._json(message)
        elif self._streams and (self._exchange.prompts or self._body):
            await self._event(message)
        else:
            await self._send(message)

    async def _begin(self, message: Any) -> None:
        kind = dict(message["headers"]).get(b"content-type", b"").partition(b";")[0]
        self._streams = kind == b"text/event-stream"
        if kind == b"application/json" and message["status"] == 200 and self._exchange.prompts:
            self._start = message
        else:
            await self._send(message)

    async def _json(self, message: Any) -> None:
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        body = self._with_told(self._body)
        length = (b"content-length", str(len(body)).encode())
        kept = [one for one in self._start["headers"] if one[0].lower() != length[0]]
        await self._send({**self._start, "headers": [*kept, length]})
        await self._send({**message, "body": body})

    async def _event(self, message: Any) -> None:
        body, more = self._body + message.get("body", b""), message.get("more_body", False)
        if more and not self._exchange.complete:
            self._body, leaves = b"", body
        else:
            self._body, leaves = self._split(body, more)
        if leaves or not more:
            self._last = leaves or self._last
            await self._send({**message, "body": leaves})

    def _split(self, body: bytes, more: bool) -> tuple[bytes, bytes]:
        """Return what of some events is kept back, and what leaves."""
        events = [one + _END for one in body.split(_END) if one]
        ends = next((i for i, one in enumerate(events) if _data(one) == _DONE), None)
        if more and ends is None:
            # Comments may follow the last event that has data.
            last = max((i for i, one in enumerate(events) if _data(one)), default=len(events))
            return b"".join(events[last:]), b"".join(events[:last])
        said = events if ends is None else events[:ends]
        last = max((i for i, one in enumerate(said) if _data(one)), default=-1)
        if last >= 0:
            said[last] = self._told_event(said[last])
        elif ends is not None and (data := _data(self._last)):
            said.append(_DATA + b" " + self._with_told(data, empty=True) + _END)
        return b"", b"".join([*said, *(events[ends:] if ends is not None else [])])

    def _told_event(self, event: bytes) -> bytes:
        data = _data(event)
        return event.replace(data, self._with_told(data), 1)

    def _with_told(self, text: bytes, empty: bool = False) -> bytes:
        """Return a JSON object with what is told in it, and without choices where `empty`."""
        told = self._exchange.told() if self._exchange.complete else {}
        try:
            whole = json.loads(text)
        except ValueError:
            return text
        # A response of /v1/responses has a field for its error, which is null without one.
        if not told or not isinstance(whole, dict) or whole.get("error"):
            return text
        if empty and "choices" in whole:
            whole["choices"] = []
        # An event of /v1/responses has the whole response in it.
        target = whole["response"] if isinstance(whole.get("response"), dict) else whole
        target[CARRIED] = {**(target.get(CARRIED) or {}), **told}
        return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def _data(event: bytes) -> bytes:
    """Return the data of an event, nothing of one that has none."""
    for line in event.split(b"\n"):
        if line.startswith(_DATA):
            return line[len(_DATA) :].strip()
    return b""
