"""`interv doctor --server URL`: ask a running server what is there and what does not work.

Nothing is generated: the one request that is sent names a program that does not exist, and a
server that interv guards refuses it.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from interv.commands.findings import Finding
from interv.errors import IntervError

_WAIT_S = 10.0
_MOST_BYTES = 16 << 20
_ARMED = "/v1/interventions"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said: `status` 0 where nobody answered, and `text` is why."""

    status: int
    text: str

    def json(self) -> Mapping[str, Any]:
        """Return the object that the text is; an empty one where it is none."""
        try:
            found = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: the key is for this server alone."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Server:
    """One server over HTTP; `key` is its API key."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """Raises IntervError E574 for what is not the address of a server."""
        self._url = _address(url)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._opener = urllib.request.build_opener(_Stay)

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Get a path, or post a body to it."""
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, **({"Content-Type": "application/json"} if data else {})}
        request = urllib.request.Request(self._url + path, data, headers)
        try:
            with self._opener.open(request, timeout=_WAIT_S) as reply:
                return Answer(reply.status, reply.read(_MOST_BYTES).decode(errors="replace"))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read(_MOST_BYTES).decode(errors="replace"))
        except urllib.error.URLError as error:
            return Answer(0, str(error.reason))
        except Exception as error:  # what else is no HTTP: a wrong status line, a cut answer
            return Answer(0, f"{type(error).__name__}: {error}")


def _address(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname)
        whole = whole and not (parts.query or parts.fragment) and (parts.port or 1) > 0
    except ValueError:
        whole = False
    if not whole:
        raise IntervError(
            "E574",
            f"'{url}' is not the address of a server",
            helps=["write it as http://localhost:8000"],
        )
    return url.rstrip("/").removesuffix("/v1")


def diagnose_server(url: str, key: str | None) -> tuple[Finding, ...]:
    """Ask a server part by part; stops at the first without which the rest says nothing.

    Raises IntervError E574 for what is not the address of a server.
    """
    return tuple(_findings(Server(url, key)))


def _findings(server: Server) -> Iterator[Finding]:
    for look in (_up, _vllm, _key):
        found = look(server)
        yield found
        if found.state == "fail":
            return
    answer = server.ask(_ARMED)
    armed = answer.json()
    if answer.status != 200 or "armed" not in armed:
        said = f"HTTP {answer.status} from {_ARMED}"
        help_ = "install interv beside vLLM (VLLM_PLUGINS must not leave it out), start again"
        yield Finding("interv", "fail", f"vLLM runs without it ({said})", help_)
        return
    yield Finding("interv", "ok", str(armed.get("interv")))
    if not armed["armed"]:
        yield Finding("armed", "fail", "nothing", "start it with --intervention FILE")
        return
    yield from _armed(armed)
    yield _metrics(server)
    yield _admission(server, [str(one["name"]) for one in armed["programs"]])


def _up(server: Server) -> Finding:
    answer = server.ask("/health")
    if answer.status == 200:
        return Finding("server", "ok", "answers /health")
    if answer.status:
        found = f"HTTP {answer.status} from /health"
        return Finding("server", "fail", found, "is this the address of `vllm serve`?")
    return Finding(
        "server", "fail", f"no answer: {answer.text}", "is it started, and the port right?"
    )


def _vllm(server: Server) -> Finding:
    answer = server.ask("/version")
    version = answer.json().get("version")
    if answer.status == 200 and isinstance(version, str):
        return Finding("vLLM", "ok", version)
    found = f"HTTP {answer.status} from /version, and no version: this is not vLLM"
    return Finding("vLLM", "fail", found, "name the address of `vllm serve` itself")


def _key(server: Server) -> Finding:
    answer = server.ask("/v1/models")
    if answer.status == 200:
        models = ", ".join(_models(answer))
        return Finding("models", "ok", models or "none")
    if answer.status == 401:
        return Finding(
            "API key", "fail", "refused (HTTP 401)", "name it by --key, or by VLLM_API_KEY"
        )
    return Finding("models", "fail", f"HTTP {answer.status} from /v1/models: {_line(answer.text)}")


def _models(answer: Answer) -> list[str]:
    data = answer.json().get("data")
    return [str(one["id"]) for one in data] if isinstance(data, list) else []


def _armed(armed: Mapping[str, Any]) -> Iterator[Finding]:
    names = ", ".join(one["name"] for one in armed["programs"])
    default = armed["default"] or "none"
    inline = "taken" if armed["inline"] else "refused"
    yield Finding("documents", "ok", ", ".join(armed["documents"]) or "none")
    yield Finding("programs", "ok", f"{names or 'none'}; default {default}; inline {inline}")
    yield Finding("sites", "ok", ", ".join(armed["sites"]) or "none")
    sinks = ", ".join(f"{one['name']} ({one['kind']})" for one in armed["sinks"])
    yield Finding("sinks", "ok", sinks or "none")
    kv = armed["kv"]
    said = f"{kv['policy']}, budget {kv['budget']}, buffer {kv['buffer']}" if kv else "none"
    yield Finding("KV policy", "ok", said)
    yield _slots(armed)


def _slots(armed: Mapping[str, Any]) -> Finding:
    used, total, held = armed["slots"]["used"], armed["slots"]["total"], armed["held"]
    found = f"{used} of {total} used, {held} requests held, {armed['reports']} reports at once"
    if held:
        return Finding("slots", "warn", found, "more --intervention-slots, where they are all used")
    return Finding("slots", "ok", found)


def _metrics(server: Server) -> Finding:
    answer = server.ask("/metrics")
    lines = [line for line in answer.text.splitlines() if line.startswith("interv_")]
    if answer.status != 200 or not lines:
        found = f"no interv_* on /metrics (HTTP {answer.status})"
        return Finding("metrics", "fail", found, "is a proxy in front, or are metrics off?")
    edited = [line for line in lines if line.startswith("interv_edited_rows_total")]
    rows = sum(float(line.rsplit(" ", 1)[1]) for line in edited)
    return Finding("metrics", "ok", f"{len(lines)} interv_* values, {rows:.0f} rows edited so far")


def _admission(server: Server, programs: list[str]) -> Finding:
    """Ask for a program that does not exist: a request that generates nothing if it is refused."""
    name = "doctor"
    while name in programs:
        name += "_"
    model = next(iter(_models(server.ask("/v1/models"))), "")
    body = {"model": model, "prompt": "x", "max_tokens": 1, "vllm_xargs": {"intervention": name}}
    answer = server.ask("/v1/completions", body)
    if answer.status == 400 and "error[E205]" in answer.text:
        return Finding("admission", "ok", "a program that does not exist is refused with HTTP 400")
    if answer.status in (404, 405):
        return Finding("admission", "warn", "not tried: this server has no /v1/completions")
    found = f"a program that does not exist gets HTTP {answer.status}: {_line(answer.text)}"
    return Finding(
        "admission", "fail", found, "requests may run unedited: look at the server's log"
    )


def _line(text: str) -> str:
    lines = text.strip().splitlines()
    return (lines[0] if lines else "nothing")[:200]
