"""`interv doctor --server` where there is no server of vLLM, or none that answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from interv.commands.doctor_server import diagnose_server, key_from_environment


@contextmanager
def answering(replies: Mapping[str, tuple[int, Any]]) -> Iterator[str]:
    """Answer each path with a status and JSON; every other path is 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = replies.get(self.path, (404, {"detail": "Not Found"}))
            if (
                status == 200
                and self.path.startswith("/v1")
                and "Authorization" not in self.headers
            ):
                status, body = 401, {"error": "Unauthorized"}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def rows(url: str, key: str | None = None) -> list[tuple[str, str, str]]:
    return [(one.what, one.state, one.found) for one in diagnose_server(url, key)]


VLLM = {"/version": (200, {"version": "0.32.0"}), "/v1/models": (200, {"data": []})}


def test_nothing_answers() -> None:
    ((what, state, found),) = rows("http://127.0.0.1:1")
    assert (what, state) == ("server", "fail")
    assert found.startswith("http://127.0.0.1:1 does not answer: ")
    ((_, _, found),) = rows("nowhere")
    assert found == "nowhere does not answer: unknown url type: 'nowhere/version'"


def test_something_else_answers() -> None:
    with answering({}) as url:
        found = f"{url} answers, and not as vLLM: HTTP 404 for /version"
        assert rows(url) == [("server", "fail", found)]


def test_a_key_is_wanted() -> None:
    with answering(VLLM) as url:
        first, second = rows(url)
        assert first == ("server", "ok", f"vLLM 0.32.0 at {url}")
        assert second == ("key", "fail", "the server wants an API key")


def test_a_server_without_interventions() -> None:
    with answering(VLLM) as url:
        assert rows(url, "sekret")[-1] == ("interv", "fail", "Not Found")
    told = {"detail": "this server was started without --intervention"}
    with answering({**VLLM, "/v1/interventions": (404, told)}) as url:
        assert rows(url, "sekret")[-1] == ("interv", "fail", told["detail"])


def test_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTERV_API_KEY", raising=False)
    monkeypatch.setenv("VLLM_API_KEY", "theirs")
    assert key_from_environment() == "theirs"
    monkeypatch.setenv("INTERV_API_KEY", "ours")
    assert key_from_environment() == "ours"
