"""Download a wheel from pip's index, so that an interrupted download goes on where it stopped.

The index says where the wheel is and what its sha256 is (PEP 503); the bytes come by HTTP with a
range for what is missing. Where that cannot be had (an index of folders, a login that only pip
knows), pip downloads the wheel itself, from its beginning.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from interv.demo.file_list import sha256_of

_CHUNK = 1 << 18
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Located:
    """Where a wheel is."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """Return the wheel's file name."""
        return self.url.rsplit("/", 1)[-1]


def locate(requirement: str) -> Located | None:
    """Ask pip's index for a wheel, `NAME==VERSION`; None where it is not there with its sha256.

    The index is that of pip's environment variable or configuration, else PyPI.
    """
    name, version = requirement.split("==")
    page = f"{_index().rstrip('/')}/{name}/"
    stem = f"{name.replace('-', '_')}-{version}-"
    links = _Links()
    try:
        with _open(page, {"Accept": "text/html"}) as reply:
            links.feed(reply.read().decode())
    except (OSError, ValueError):
        return None
    for link in links.found:
        url, _, fragment = urllib.parse.urljoin(page, link).partition("#")
        located = Located(url, fragment.removeprefix("sha256="))
        if located.name.startswith(stem) and url.endswith(".whl") and len(located.sha256) == 64:
            return located
    return None


class _Links(HTMLParser):
    """The targets of a page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _index() -> str:
    if found := os.environ.get("PIP_INDEX_URL"):
        return found
    if os.environ.get("PIP_NO_INDEX"):
        return ""
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "https://pypi.org/simple"


def _open(url: str, headers: dict[str, str]) -> Any:
    if not url.startswith(("http://", "https://")):
        raise ValueError(url)
    request = urllib.request.Request(url, headers=headers)
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
    return urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context)


def fetch(located: Located, folder: Path, done: Callable[[int], None]) -> Path | None:
    """Return the whole wheel in `folder`, going on with what an earlier call left of it.

    `done` is told how many bytes are there. None where the server does not give it; what has
    come stays for the next call.
    """
    part, wheel = folder / f"{located.name}.part", folder / located.name
    try:
        _receive(located.url, part, done)
    except (OSError, ValueError):
        return None
    if sha256_of(part) != located.sha256:
        part.unlink()
        return None
    os.replace(part, wheel)
    return wheel


def _receive(url: str, part: Path, done: Callable[[int], None]) -> None:
    there = part.stat().st_size if part.exists() else 0
    try:
        reply = _open(url, {"Range": f"bytes={there}-"} if there else {})
    except urllib.error.HTTPError as error:
        # Nothing is missing: the run before ended between the last byte and the check.
        if error.code == 416 and there:
            return
        raise
    with reply, part.open("ab" if reply.status == 206 else "wb") as file:
        while data := reply.read(_CHUNK):
            file.write(data)
            done(file.tell())
