"""A `vllm serve … --intervention` process as an operator has it: with a key, and signals."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

VLLM = Path(sys.executable).with_name("vllm")
QUIET = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_CI_ENV": "1", "VLLM_NO_USAGE_STATS": "1"}
KEY, MODEL = "sekret", "m"
# A server that is not up by then never will be; it takes about a tenth of this.
START_SECONDS = 300


@dataclass(frozen=True)
class Usage:
    """What one process takes."""

    rss_mib: int
    files: int
    threads: int


@dataclass
class Operated:
    """A server that runs."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def client(self, timeout_s: float = 120.0, key: str | None = KEY) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, trust_env=False)

    def said(self, part: str = "interv: ") -> list[str]:
        """Return the lines of the log with this part, from it on."""
        lines = re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text(errors="replace")).splitlines()
        return [line[line.index(part) :] for line in lines if part in line]

    def tree(self) -> list[psutil.Process]:
        """Return the server's processes."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def usage(self) -> dict[int, Usage]:
        """Return what each process takes, by its id."""
        return {
            one.pid: Usage(one.memory_info().rss >> 20, one.num_fds(), one.num_threads())
            for one in self.tree()
        }

    def metric(self, name: str) -> float:
        """Return a number of /metrics, summed over its labels."""
        with self.client() as client:
            lines = client.get("/metrics").text.splitlines()
        found = [line for line in lines if re.match(rf"{re.escape(name)}[ {{]", line)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)


@contextmanager
def operated(model: Path, document: Path, more: Sequence[str] = ()) -> Iterator[Operated]:
    """Serve `document` with an API key until the block ends; the server may end before."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(VLLM), "serve", str(model), "--intervention", str(document)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", "512"]
    command += ["--dtype", "float32", "--served-model-name", MODEL, "--api-key", KEY, *more]
    log = document.parent / "server.log"
    with log.open("wb") as out:
        # A group of its own, as a terminal gives it: Ctrl-C reaches all of it.
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | QUIET, start_new_session=True
        )
    server = Operated(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait(server)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def _wait(server: Operated) -> None:
    until = time.monotonic() + START_SECONDS
    with server.client() as client:
        while time.monotonic() < until and server.process.poll() is None:
            try:
                if client.get("/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.5)
    raise AssertionError(f"the server did not come up:\n{server.log.read_text()[-4000:]}")
