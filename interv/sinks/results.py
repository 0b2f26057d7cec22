"""What became of each captured request: small files beside its rows, for whoever waits for them.

A worker writes a file once all rows of a request are where they should be, or are known not to
be; clients and the server read it by the request's handle.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from interv.errors import IntervError

Status: TypeAlias = Literal["ok", "held", "dropped", "error"]
_NAME = re.compile(r"^[A-Za-z0-9-]{1,80}$")
# How many results are kept; the oldest go first.
_MOST = 4096
_LOOK_S = 0.01
# How old the folder of an engine is that no process has claimed, when it is taken for left over.
_LEFT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of the rows that one capture statement took of one sample of a request.

    `held` rows wait in the ring until the request is marked; `detail` is the sink's own.
    """

    request: str
    sample: int
    statement: str  # "calm.interv:12"
    program: str
    sink: str
    kind: str
    status: Status
    rows: int
    detail: Mapping[str, str | int | float] = field(default_factory=dict)
    error: str = ""


def engine_folder(engine: str) -> Path:
    """Return where an engine keeps what it shares with clients: in shared memory if there is any.

    Raises IntervError E562 for what is no engine's name.
    """
    if not _NAME.match(engine):
        raise IntervError("E562", f"'{engine:.80}' is not the name of an engine")
    shared = Path("/dev/shm")
    usable = shared.is_dir() and os.access(shared, os.W_OK)
    return (shared if usable else Path(tempfile.gettempdir())) / f"{engine}.captures"


def claim(folder: Path) -> None:
    """Make an engine's folder for this process, and remove those of engines that were killed."""
    for other in folder.parent.glob("interv-*.captures"):
        owners = [path.name.partition("-")[2] for path in other.glob("pid-*")]
        # One without a name is being made, or what is left of one.
        gone = not any(map(_runs, owners)) if owners else _age_s(other) > _LEFT_S
        if other != folder and gone:
            shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / f"pid-{os.getpid()}").touch()


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass  # another user's
    return True


class Results:
    """The results of one engine's requests, a file for each sample and pipeline stage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "results"

    def write(self, handle: str, part: str, results: Sequence[Result]) -> None:
        """Publish the results of a sample; writing them again takes the place of the last."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self._folder / f"{handle}.{part}.json"
        made = target.with_suffix(".part")
        made.write_text(json.dumps([asdict(one) for one in results]), encoding="utf-8")
        made.replace(target)
        self._forget()

    def read(self, handle: str) -> dict[str, tuple[Result, ...]]:
        """Return what is there of a request, by sample and stage.

        Raises IntervError E562 for what is no handle.
        """
        if not _NAME.match(handle):
            raise IntervError("E562", f"'{handle:.80}' is not the handle of a captured request")
        found = sorted(self._folder.glob(f"{handle}.*.json"))
        return {path.name.split(".")[1]: _load(path) for path in found}

    def wait(self, handle: str, parts: int, timeout_s: float) -> tuple[Result, ...]:
        """Wait until so many parts of a request are there, and return their results.

        Raises IntervError E563 where they are not after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while len(found := self.read(handle)) < parts:
            if time.monotonic() > deadline:
                raise IntervError(
                    "E563",
                    f"the captured rows of '{handle}' are not there after {timeout_s:g} s",
                    notes=[f"{len(found)} of {parts} parts have arrived"],
                    helps=["wait longer, or look for errors of the sink in the engine's log"],
                )
            time.sleep(_LOOK_S)
        return tuple(one for part in found.values() for one in part)

    def _forget(self) -> None:
        listed = list(self._folder.glob("*.json"))
        if len(listed) > _MOST + _MOST // 4:
            listed.sort(key=lambda path: path.stat().st_mtime)
            for path in listed[: len(listed) - _MOST]:
                path.unlink(missing_ok=True)


def _load(path: Path) -> tuple[Result, ...]:
    data: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return tuple(Result(**one) for one in data)
