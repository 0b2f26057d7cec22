"""`interv doctor --server URL`: ask a server what it is armed with, and try its admission."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from interv.commands.findings import Finding

_TIMEOUT_S = 10.0
_MOST_BYTES = 1 << 20
KEY_VARIABLES = ("INTERV_API_KEY", "VLLM_API_KEY")


@dataclass(frozen=True, slots=True)
class Reply:
    """A status and the JSON that came with it; status 0 where nothing answered."""

    status: int
    body: Any
    reason: str = ""


def key_from_environment() -> str | None:
    """Return the API key that the environment names."""
    return next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)


def diagnose_server(url: str, key: str | None) -> Iterator[Finding]:
    """Yield what a server at `url` says, until something keeps it from saying more.

    Nothing is generated: the one request that is sent names a program that does not exist.
    """
    server = _Server(url.rstrip("/"), key)
    version = server.ask("/version")
    if version.status != 200 or not isinstance(version.body, Mapping):
        yield _unreached(url, version)
        return
    yield Finding("server", "ok", f"vLLM {version.body.get('version', '?')} at {url}")
    models = server.ask("/v1/models")
    if models.status in (401, 403):
        told = "give it by --key, or in " + " or ".join(KEY_VARIABLES)
        yield Finding("key", "fail", "refused" if key else "the server wants an API key", told)
        return
    armed = server.ask("/v1/interventions")
    if armed.status != 200 or not isinstance(armed.body, Mapping):
        said = _said(armed.body) or "it has no /v1/interventions"
        yield Finding("interv", "fail", said, "start it with --intervention FILE")
        return
    yield from _armed(armed.body)
    yield _admission(server, models.body, armed.body)


class _Server:
    """A server over HTTP."""

    def __init__(self, url: str, key: str | None) -> None:
        self._url = url
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """Send a request, a POST where it has a body, and read its answer."""
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(self._url + path, data, self._headers)
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:
                return Reply(reply.status, _json(reply.read(_MOST_BYTES)))
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, _json(error.read(_MOST_BYTES)))
        except (OSError, ValueError) as error:
            return Reply(0, None, str(getattr(error, "reason", error)))


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _unreached(url: str, reply: Reply) -> Finding:
    if reply.status == 0:
        return Finding("server", "fail", f"{url} does not answer: {reply.reason}", "is it up?")
    found = f"{url} answers, and not as vLLM: HTTP {reply.status} for /version"
    return Finding("server", "fail", found, "name the address of `vllm serve`, without a path")


def _armed(said: Mapping[str, Any]) -> Iterator[Finding]:
    documents = ", ".join(said["documents"])
    yield Finding("interv", "ok", f"{said['interv']}, armed with {documents}")
    names = [one["name"] for one in said["programs"]]
    marked = [f"{name} (default)" if name == said["default"] else name for name in names]
    more = "; requests may bring their own" if said["inline"] else ""
    yield Finding("programs", "ok", (", ".join(marked) or "none") + more)
    yield Finding("sites", "ok", ", ".join(said["sites"]) or "none")
    if said["sinks"]:
        sinks = ", ".join(f"{one['name']} ({one['kind']})" for one in said["sinks"])
        yield Finding("sinks", "ok", sinks)
    if said["kv"]:
        yield Finding("KV policy", "ok", f"{said['kv']['policy']}, {said['kv']['default']}")
    size, used, held = said["slots"]["size"], said["slots"]["used"], said["held"]
    found = f"{used} of {size} filled, {held} requests wait"
    if held:
        yield Finding("slots", "warn", found, "start it with more --intervention-slots")
    else:
        yield Finding("slots", "ok", found)


def _admission(server: _Server, models: Any, said: Mapping[str, Any]) -> Finding:
    """Try a program that no document has: HTTP 400 is what a client must get."""
    known = {one["name"] for one in said["programs"]}
    name = "nosuchprogram"
    while name in known:
        name += "x"
    served = [one["id"] for one in (models or {}).get("data", [])]
    body = {"prompt": "a", "max_tokens": 1, "vllm_xargs": {"intervention": name}}
    reply = server.ask("/v1/completions", {"model": served[0] if served else "", **body})
    if reply.status == 400 and name in _said(reply.body):
        return Finding("admission", "ok", "a program that does not exist is HTTP 400")
    found = f"a program that does not exist is HTTP {reply.status}, not 400"
    told = "requests may run without what they ask for: look at the server's log"
    return Finding("admission", "fail", found, told)


def _said(body: Any) -> str:
    """Return the message of an error as vLLM or FastAPI writes it."""
    if not isinstance(body, Mapping):
        return ""
    error = body.get("error", body)
    found = error.get("message", body.get("detail", "")) if isinstance(error, Mapping) else error
    return str(found).partition("\n")[0]
