"""What `interv doctor --server` says of servers that are not what they should be."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from interv.cli import build
from interv.commands.findings import Finding
from interv.commands.server import diagnose_server
from interv.errors import IntervError

OK, NOT_FOUND = 200, 404
MODELS = {"data": [{"id": "m"}]}
ARMED = {
    "interv": "0.1",
    "armed": True,
    "documents": ["a.interv"],
    "programs": [{"name": "doctor", "edits": ["post_block[1]"], "captures": []}],
    "default": "doctor",
    "inline": False,
    "sites": ["post_block[1]"],
    "sinks": [],
    "kv": {"policy": "r1kv", "budget": 24, "buffer": 16},
    "slots": {"total": 8, "used": 8},
    "reports": 64,
    "held": 3,
}
VLLM: Mapping[str, tuple[int, object]] = {
    "/health": (OK, ""),
    "/version": (OK, {"version": "0.32.0"}),
    "/v1/models": (OK, MODELS),
}


@contextmanager
def answering(
    answers: Mapping[str, tuple[int, object]], headers: Mapping[str, str] | None = None
) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Serve fixed answers by path, 404 elsewhere; yield the address and what was asked."""
    asked: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            asked.append((self.path, self.rfile.read(length)))
            status, said = answers.get(self.path, (NOT_FOUND, {"detail": "Not Found"}))
            text = said if isinstance(said, str) else json.dumps(said)
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_nobody_answers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        found = diagnose_server(f"http://127.0.0.1:{taken.getsockname()[1]}", None)
    assert found == (
        Finding(
            "server",
            "fail",
            "no answer: [Errno 111] Connection refused",
            "is it started, and the port right?",
        ),
    )


def test_something_that_does_not_speak_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def talk() -> None:
            with listening.accept()[0] as other:
                other.recv(1000)
                other.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        (found,) = diagnose_server(url, None)
        thread.join()
    assert (found.what, found.state) == ("server", "fail")
    assert found.found.startswith("no answer: ")
    assert "SSH-2.0" in found.found


STRANGERS: Mapping[str, tuple[Mapping[str, tuple[int, object]], Finding]] = {
    "not vLLM": (
        {"/health": (OK, "fine")},
        Finding(
            "vLLM",
            "fail",
            "HTTP 404 from /version, and no version: this is not vLLM",
            "name the address of `vllm serve` itself",
        ),
    ),
    "another version": (
        {"/health": (OK, ""), "/version": (OK, "[" * 100_000)},
        Finding(
            "vLLM",
            "fail",
            "HTTP 200 from /version, and no version: this is not vLLM",
            "name the address of `vllm serve` itself",
        ),
    ),
    "ill": (
        {"/health": (503, "")},
        Finding("server", "fail", "HTTP 503 from /health", "is this the address of `vllm serve`?"),
    ),
    "a wrong key": (
        {**VLLM, "/v1/models": (401, {"error": "Unauthorized"})},
        Finding("API key", "fail", "refused (HTTP 401)", "name it by --key, or by VLLM_API_KEY"),
    ),
    "without interv": (
        VLLM,
        Finding(
            "interv",
            "fail",
            "vLLM runs without it (HTTP 404 from /v1/interventions)",
            "install interv beside vLLM (VLLM_PLUGINS must not leave it out), start again",
        ),
    ),
    "without a document": (
        {**VLLM, "/v1/interventions": (OK, {"interv": "0.1", "armed": False})},
        Finding("armed", "fail", "nothing", "start it with --intervention FILE"),
    ),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_server_that_lacks_something(kind: str) -> None:
    answers, last = STRANGERS[kind]
    with answering(answers) as (url, _):
        found = diagnose_server(url, None)
    assert found[-1] == last
    assert [one.state for one in found[:-1]] == ["ok"] * (len(found) - 1)


def whole(completions: tuple[int, object]) -> dict[str, tuple[int, object]]:
    metrics = 'interv_edited_rows_total{site="a"} 2.0\ninterv_edited_rows_total{site="b"} 3.0\n'
    own = {"/v1/interventions": (OK, ARMED), "/metrics": (OK, metrics)}
    return {**VLLM, **own, "/v1/completions": completions}


def test_requests_that_are_not_refused_are_told_of() -> None:
    with answering(whole((OK, {"choices": []}))) as (url, asked):
        arguments = ["doctor", "--server", f"{url}/v1/", "--key", "k"]
        result = CliRunner().invoke(build(arguments), arguments, env={"COLUMNS": "300"})
    assert result.exit_code == 1
    assert 'a program that does not exist gets HTTP 200: {"choices": []}' in result.output
    assert "8 of 8 used, 3 requests held, 64 reports at once" in result.output
    assert "2 interv_* values, 5 rows edited so far" in result.output
    assert "r1kv, budget 24, buffer 16" in result.output
    assert result.output.endswith("not working: admission\n")
    # A name that no program has.
    posted = json.loads(asked[-1][1])
    assert (posted["model"], posted["vllm_xargs"]) == ("m", {"intervention": "doctor_"})


@pytest.mark.parametrize(
    ("completions", "state"),
    [((400, {"error": {"message": "error[E205]: no program"}}), "ok"), ((404, {}), "warn")],
)
def test_requests_that_are_refused(completions: tuple[int, object], state: str) -> None:
    with answering(whole(completions)) as (url, _):
        found = diagnose_server(url, None)
    assert (found[-1].what, found[-1].state) == ("admission", state)


def test_a_key_is_not_carried_elsewhere() -> None:
    with answering(VLLM) as (elsewhere, asked):
        moved = {"Location": f"{elsewhere}/health"}
        with answering({"/health": (302, "")}, moved) as (url, _):
            (found,) = diagnose_server(url, "secret")
    assert found.found == "HTTP 302 from /health"
    assert asked == []


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://a", "http://", "http://a:99999", "http://a?b=c", "http://[a"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(IntervError) as caught:
        diagnose_server(url, None)
    assert str(caught.value) == (
        f"error[E574]: '{url}' is not the address of a server\n"
        "  = write it as http://localhost:8000"
    )
