"""The routes of a server that tests ask: a body for each, and the table in the docs."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[2] / "docs" / "server.md"
TOKENS = 6
GREEDY = {"model": "m", "temperature": 0, "max_tokens": TOKENS}
TALK = [{"role": "user", "content": "Tell me about the weather"}]


@dataclass
class Reply:
    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> str:
        assert self.status == 400, self.text
        return str(self.json["error"]["message"])

    @property
    def events(self) -> list[Any]:
        """Return the data of a stream's events, without the one that ends it."""
        found = re.findall(r"^data: *(.*)$", self.text, re.MULTILINE)
        return [json.loads(one) for one in found if one != "[DONE]"]


def send(url: str, body: Any = None, **xargs: Any) -> Reply:
    data = None if body is None else {**body, **({"vllm_xargs": xargs} if xargs else {})}
    request = urllib.request.Request(
        url,
        None if data is None else json.dumps(data).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as reply:
            return Reply(reply.status, reply.read().decode())
    except urllib.error.HTTPError as refusal:
        return Reply(refusal.code, refusal.read().decode())


@dataclass(frozen=True)
class Route:
    body: dict[str, Any]
    answer: str = ""  # where what the model says stands in an answer
    choices: int = 1
    ends: str = ""  # the type of the event that ends a stream, where events have one
    streams: bool = True


ROUTES = {
    "/v1/completions": Route({**GREEDY, "prompt": "Once upon a time"}, "choices"),
    "/v1/chat/completions": Route({**GREEDY, "messages": TALK}, "choices"),
    "/v1/chat/completions/batch": Route(
        {**GREEDY, "messages": [TALK, TALK]}, "choices", choices=2, streams=False
    ),
    "/v1/responses": Route(
        {"model": "m", "temperature": 0, "max_output_tokens": TOKENS, "input": "Hello"},
        "output",
        ends="response.completed",
    ),
    "/v1/messages": Route({**GREEDY, "messages": TALK}, "content", ends="message_stop"),
    "/invocations": Route({**GREEDY, "prompt": "Once upon a time"}, "choices"),
    "/generative_scoring": Route(
        {"model": "m", "query": "Good?", "items": ["yes", "no", "so"], "label_token_ids": [5, 6]},
        "data",
        choices=3,
        streams=False,
    ),
    "/inference/v1/generate": Route(
        {
            "model": "m",
            "token_ids": [5, 6, 7],
            "sampling_params": {"temperature": 0, "max_tokens": TOKENS},
        },
        "choices",
    ),
    "/v1/completions/render": Route({**GREEDY, "prompt": "Hello"}, streams=False),
    "/v1/chat/completions/render": Route({**GREEDY, "messages": TALK}, streams=False),
    "/v1/responses/render": Route({"model": "m", "input": "Hello"}, streams=False),
    "/v1/messages/render": Route({**GREEDY, "messages": TALK}, streams=False),
    "/tokenize": Route({"model": "m", "prompt": "Hello"}, streams=False),
    "/v1/messages/count_tokens": Route({"model": "m", "messages": TALK}, streams=False),
}


def table() -> dict[str, tuple[str, ...]]:
    """Return the rows of the table in the docs."""
    rows = re.findall(r"^\| `(/[^`]*)` \|(.*)\|$", TABLE.read_text(), re.MULTILINE)
    return {name: tuple(one.strip() for one in cells.split("|")) for name, cells in rows}
