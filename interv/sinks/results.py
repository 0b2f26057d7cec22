"""What became of each captured request: small files beside its rows, for whoever waits for them.

    ENGINE.captures/results/HANDLE/SAMPLE-STAGE.json

A worker writes a file once all rows of a sample are where they should be, or are known not to be;
clients and the server read it by the request's handle, which tells them no more than that.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from interv.errors import IntervError
from interv.sinks.owner import shared_place

Status: TypeAlias = Literal["ok", "held", "dropped", "error"]
_NAME = re.compile(r"^[A-Za-z0-9-]{1,80}$")
# How many requests' results are kept; the oldest go first, a quarter of so many at once.
_MOST = 4096
# How often a client looks: soon at first, then less and less.
_LOOK_S, _LOOK_LESS, _LONGEST_LOOK_S = 0.002, 1.3, 0.05


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
    return shared_place() / f"{engine}.captures"


def check_handle(handle: str) -> None:
    """Raise IntervError E562 for what is no handle."""
    if not _NAME.match(handle):
        raise IntervError("E562", f"'{handle:.80}' is not the handle of a captured request")


def results_of(handle: str) -> Results | None:
    """Return the results of the engine on this machine that has some of a handle, if one has."""
    check_handle(handle)
    for folder in shared_place().glob("interv-*.captures"):
        if os.path.isdir(folder / "results" / handle):  # another user's is not ours to look into
            return Results(folder)
    return None


def wait_for(handle: str, samples: int, timeout_s: float) -> tuple[Result, ...]:
    """Wait until an engine on this machine has all results of a request, and return them.

    Raises IntervError E562 for what is no handle, E563 where they are not after `timeout_s`.
    """
    deadline, pause = time.monotonic() + timeout_s, _LOOK_S
    while True:
        known = results_of(handle)
        found = known.complete(handle, samples) if known is not None else None
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise not_there(handle, len(known.read(handle)) if known else 0, timeout_s)
        time.sleep(pause)
        pause = min(pause * _LOOK_LESS, _LONGEST_LOOK_S)


def not_there(handle: str, parts: int, timeout_s: float) -> IntervError:
    """Return E563 for results that have not come."""
    return IntervError(
        "E563",
        f"the captured rows of '{handle}' are not there after {timeout_s:g} s",
        notes=[f"{parts} parts have arrived"],
        helps=["wait longer, or look for errors of the sink in the engine's log"],
    )


class Results:
    """The results of one engine's requests, a file for each sample and pipeline stage."""

    def __init__(self, folder: Path, stages: int = 1) -> None:
        self._folder, self._stages = folder / "results", stages
        self._written = 0

    def write(self, handle: str, part: str, results: Sequence[Result]) -> None:
        """Publish the results of a sample; writing them again takes the place of the last."""
        place = self._folder / handle
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = place / f"{part}.json"
        made = target.with_suffix(".part")
        said = {"stages": self._stages, "results": [asdict(one) for one in results]}
        made.write_text(json.dumps(said), encoding="utf-8")
        made.replace(target)
        self._written += 1
        if self._written % (_MOST // 4) == 0:
            self._forget()

    def read(self, handle: str) -> dict[str, tuple[Result, ...]]:
        """Return what is there of a request, by sample and stage.

        Raises IntervError E562 for what is no handle.
        """
        return self._parts(handle)[0]

    def complete(self, handle: str, samples: int = 1) -> tuple[Result, ...] | None:
        """Return the results of a request of which all stages of so many samples are there."""
        parts, stages = self._parts(handle)
        if not stages or len(parts) < samples * stages:
            return None
        return tuple(one for part in parts.values() for one in part)

    def _parts(self, handle: str) -> tuple[dict[str, tuple[Result, ...]], int]:
        """Return what is there, and how many stages each sample has; 0 where it is not known."""
        check_handle(handle)
        parts, stages = {}, 0
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self._folder / handle)):
                if name.endswith(".json"):
                    text = (self._folder / handle / name).read_text(encoding="utf-8")
                    said: dict[str, Any] = json.loads(text)
                    stages = said["stages"]
                    parts[name.removesuffix(".json")] = tuple(Result(**r) for r in said["results"])
        return parts, stages

    def _forget(self) -> None:
        listed = list(self._folder.iterdir())
        if len(listed) > _MOST:
            listed.sort(key=lambda path: path.stat().st_mtime)
            for path in listed[: len(listed) - _MOST]:
                shutil.rmtree(path, ignore_errors=True)
