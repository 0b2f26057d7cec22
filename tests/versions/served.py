"""`vllm serve` of any environment, and what it answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.error
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.engine.test_server import QUIET, post, wait_until_up

PROMPTS = ("The capital of France is", "Once upon a time")


@contextmanager
def serving(
    python: Path, model: Path, folder: Path, options: Sequence[str] = (), plugins: str | None = None
) -> Iterator[str]:
    """Run a server; `plugins` are the only ones that it may load."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(python.with_name("vllm")), "serve", str(model), "--max-model-len", "512"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--served-model-name", "m", *options]
    env = os.environ | QUIET | ({} if plugins is None else {"VLLM_PLUGINS": plugins})
    log = folder / "server.log"
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stdout=file, stderr=file, env=env) as server,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_up(server, url, log)
            yield url
        finally:
            server.terminate()
            server.wait(60)


def completion(url: str, prompt: str, **xargs: Any) -> dict[str, Any]:
    """Return a greedy completion without what differs from one answer to the next."""
    fields = {"model": "m", "prompt": prompt, "max_tokens": 16, "temperature": 0, "logprobs": 2}
    answer = post(f"{url}/v1/completions", fields | ({"vllm_xargs": xargs} if xargs else {}))
    return {name: value for name, value in answer.items() if name not in ("id", "created")}


def chat(url: str, text: str, **xargs: Any) -> str:
    """Return a greedy answer."""
    fields = {"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0}
    more = {"max_tokens": 16} | ({"vllm_xargs": xargs} if xargs else {})
    answer = post(f"{url}/v1/chat/completions", fields | more)
    return str(answer["choices"][0]["message"]["content"])


def plain_answers(url: str) -> list[Any]:
    """Return what a server says to every prompt, by two routes."""
    return [completion(url, one) for one in PROMPTS] + [chat(url, one) for one in PROMPTS]


def refusal(url: str, **xargs: Any) -> tuple[int, str]:
    """Return the status and the message of a request that is refused."""
    try:
        completion(url, PROMPTS[0], **xargs)
    except urllib.error.HTTPError as error:
        return error.code, str(json.load(error)["error"]["message"])
    raise AssertionError("it was answered")
