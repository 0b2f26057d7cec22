"""Captures of a real server: what clients are told, who waits, and what is there after its end."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import interv
from interv.captures import load_captures
from interv.runtime.captures.waiters import MOST
from interv.sinks.owner import shared_place, sweep, temporary
from interv.sinks.rescue import rescue
from interv.sinks.schema import MANIFEST

pytestmark = pytest.mark.engine

VLLM = Path(sys.executable).with_name("vllm")
QUIET = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_CI_ENV": "1", "VLLM_NO_USAGE_STATS": "1"}
# What is not there by then never will be.
PATIENCE_S = 300
# The 15 seconds that an engine gets, what the server itself needs, and a machine that is busy.
STOP_S = 60
DOCUMENT = """interv 1
sink rows   = memory()
sink acts   = filesystem("acts/")
sink shards = filesystem("shards/", layout = sharded, shard_s = 3600)
program probe  { capture at post_block[15] to rows  capture at post_block[15] to acts }
program shard  { capture at post_block[3, 15] to shards }
program kept   { capture at post_block[15] to acts keep marked }
"""


@dataclass
class Server:
    folder: Path
    process: subprocess.Popen[bytes]
    http: httpx.Client

    def ask(self, program: str, tokens: int = 4, **more: Any) -> dict[str, Any]:
        headers = more.pop("headers", {})
        body = {"model": "m", "prompt": "Hello there", "max_tokens": tokens, "ignore_eos": True}
        body |= {"vllm_xargs": {"intervention": program}, **more}
        answer: dict[str, Any] = self.http.post(
            "/v1/completions", json=body, headers=headers
        ).json()
        return answer

    def results(self, handle: str, wait_s: float = 30) -> list[dict[str, Any]]:
        reply = self.http.get(f"/v1/captures/{handle}", params={"wait_s": wait_s})
        assert reply.status_code == 200, reply.text
        found: list[dict[str, Any]] = reply.json()["results"]
        return found

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def events(self, sink: str) -> list[dict[str, Any]]:
        lines = (self.folder / sink / MANIFEST).read_text().splitlines()
        return [json.loads(line) for line in lines]

    def stored(self, sink: str) -> list[str]:
        files = [one for one in self.events(sink) if one["event"] == "file"]
        return sorted(record["request"] for one in files for record in one["records"])


def wait_until(holds: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def serving(model: Path, folder: Path) -> Iterator[Server]:
    (folder / "captures.interv").write_text(DOCUMENT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(VLLM), "serve", str(model), "--intervention", str(folder / "captures.interv")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", "2048"]
    command += ["--dtype", "float32", "--served-model-name", "m"]
    command += ["--gpu-memory-utilization", "0.3"]
    limits = httpx.Limits(max_connections=None)
    with ExitStack() as stack:
        log = stack.enter_context((folder / "server.log").open("wb"))
        environment = os.environ | QUIET
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        stack.callback(end, process)
        http = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, limits=limits)
        )
        server = Server(folder, process, http)
        wait_until(lambda: is_up(server))
        yield server


def is_up(server: Server) -> bool:
    assert server.process.poll() is None, server.log()[-4000:]
    try:
        return server.http.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        known = psutil.Process(process.pid).children(recursive=True)
        for one in (*known, process):
            one.kill()
    process.wait()


@pytest.fixture(scope="module")
def server(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(model_path, tmp_path_factory.mktemp("captures")) as server:
        yield server


def handle_of(answer: dict[str, Any]) -> str:
    # Nothing of the server's inside beside the handle.
    (name,) = answer["kv_transfer_params"]["interv_captures"]
    assert name == "handle"
    return str(answer["kv_transfer_params"]["interv_captures"]["handle"])


def test_results_tell_no_folder_of_the_server(server: Server) -> None:
    answer = server.ask("probe")
    handle = handle_of(answer)
    in_memory, in_file = server.results(handle)
    (path,) = (server.folder / "acts").glob("*.safetensors")
    assert in_memory["detail"].keys() == {"bytes"}
    assert in_file["detail"] == {"path": path.name, "bytes": path.stat().st_size, "files": 1}
    # On the server's own machine and as its user, the handle is enough.
    (record,) = interv.captured(answer)
    assert record.request == f"{answer['id']}-0"
    away = (server.folder / "acts").rename(server.folder / "away")
    try:
        _, lost = server.results(handle_of(server.ask("probe")))
    finally:
        away.rename(server.folder / "acts")
    assert lost["status"] == "error"
    assert lost["error"].startswith("E552: sink 'acts' could not store what was captured of")
    assert lost["error"].split(": no such file or directory ('.")[1].endswith(".part')")
    assert str(server.folder) not in json.dumps([in_memory, in_file, lost])
    gone = server.http.get(f"/v1/captures/{handle}/rows/7")
    assert gone.json()["error"]["message"] == f"'{handle}' has 1 records in memory"


def test_rows_are_marked_by_their_handle_only(server: Server) -> None:
    mine, others = (server.ask("kept", headers={"X-Request-Id": "same"}) for _ in range(2))
    assert mine["id"] == others["id"]
    for name in ("same", mine["id"], f"{mine['id']}-0"):
        refused = server.http.post(f"/v1/captures/{name}/mark")
        assert refused.status_code == 404
    marked = server.http.post(f"/v1/captures/{handle_of(mine)}/mark")
    assert marked.json() == {"handle": handle_of(mine), "marked": 1}
    wait_until(lambda: server.results(handle_of(mine))[0]["status"] == "ok")
    assert server.results(handle_of(others))[0]["status"] == "held"


def test_clients_that_wait_and_hang_up_starve_nobody(server: Server) -> None:
    unknown = "/v1/captures/" + "f" * 32
    address = server.http.base_url.host, server.http.base_url.port
    text = f"GET {unknown}?wait_s=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(address)) for _ in range(MOST + 8)]
        for one in waiting:
            one.sendall(text)
        refused: list[socket.socket] = []

        def are_refused() -> bool:
            refused[:] = select.select(waiting, [], [], 1)[0]
            return len(refused) == 8

        wait_until(are_refused)
        head, _, body = refused[0].recv(4096).decode().partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 429 ")
        assert "retry-after: 1" in head.splitlines()
        assert json.loads(body)["error"]["message"] == (
            "too many clients wait for captures: ask again, or without wait_s"
        )
        # Whoever does not wait is answered, and so are requests.
        assert server.http.get(unknown).status_code == 404
        handle = handle_of(server.ask("probe"))
        wait_until(lambda: server.http.get(f"/v1/captures/{handle}").status_code == 200)
    # All have hung up: their places are free again long before their time.
    wait_until(lambda: server.http.get(f"{unknown}?wait_s=0.05").status_code == 404, 30)


def test_sigterm_stores_all_that_was_answered(server: Server) -> None:
    begun = threading.Event()

    def long() -> None:
        body = {"model": "m", "prompt": "A story", "max_tokens": 2000, "ignore_eos": True}
        body |= {"stream": True, "vllm_xargs": {"intervention": "shard"}}
        try:
            with server.http.stream("POST", "/v1/completions", json=body) as reply:
                for _ in reply.iter_lines():
                    begun.set()
        except httpx.TransportError:
            pass

    with ThreadPoolExecutor(1) as pool:
        story = pool.submit(long)
        assert begun.wait(PATIENCE_S)
        # While another runs, a shard is not written for want of work.
        ids = [server.ask("shard")["id"] for _ in range(10)]
        assert server.stored("shards") == []
        known, engine = server.processes(), engine_of(server, server.ask("probe"))
        assert f"{engine}.captures" in left_of(engine)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(STOP_S)
        story.result(STOP_S)
    _, left = psutil.wait_procs(known, STOP_S)
    assert left == []
    stored = server.stored("shards")
    # And of the one that the stop has cut short.
    assert len(stored) == 11
    assert set(stored) >= {f"{one}-0" for one in ids}
    for sink in ("acts", "shards"):
        assert server.events(sink)[-1]["event"] == "closed"
        assert load_captures(server.folder / sink).incomplete == ()
    aborted = [
        one for one in load_captures(server.folder / "shards").records if one.ended != "finished"
    ]
    assert len(aborted) == 1
    assert left_of(engine) == []


def engine_of(server: Server, answer: dict[str, Any]) -> str:
    """Return what a server's engine calls its files, which only its own user can find out."""
    server.results(handle_of(answer))
    (found,) = shared_place().glob(f"interv-*.captures/results/{handle_of(answer)}")
    return found.parts[-3].removesuffix(".captures")


def left_of(engine: str) -> list[str]:
    places = {shared_place(), temporary()}
    return sorted(path.name for place in places for path in place.glob(f"{engine}*"))


def is_swept(engine: str) -> bool:
    for place in {shared_place(), temporary()}:
        sweep(place, rescue)
    return left_of(engine) == []


def test_a_killed_worker_loses_no_answered_rows(model_path: Path, tmp_path: Path) -> None:
    with serving(model_path, tmp_path) as server:
        (worker,) = [one for one in server.processes() if "Worker" in one.name()]
        first = server.ask("probe")
        engine = engine_of(server, first)

        def ask(_: int) -> list[str]:
            return [server.ask(program)["id"] + "-0" for program in ("probe", "shard")]

        with ThreadPoolExecutor(8) as pool:
            answered = [one for pair in pool.map(ask, range(24)) for one in pair]
        worker.kill()
        # The server ends, as it does without us, and stores what its worker had on its way; what
        # it has no time for is stored by the next that starts, on the same path.
        server.process.wait(PATIENCE_S)
        wait_until(lambda: is_swept(engine))
        assert sorted(server.stored("acts") + server.stored("shards")) == sorted(
            [*answered, f"{first['id']}-0"]
        )
        assert len(load_captures(tmp_path / "shards").records) == 24
