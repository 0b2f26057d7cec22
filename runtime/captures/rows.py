"""The captured rows of requests that run: kept a step at a time, put together when one ends.

The engine only notes which tokens of a step are a request's. Rows are copied on a thread beside it,
some steps at a time, so that what a step took of all requests does not stay for the longest.

Dims: `T` tokens of a step, `R` its requests, `n` captured rows, `P` sites of a group, `H` width.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from interv.codegen.slot import signed
from interv.sinks.threads import use_one_core

# After so many steps the rows of a request are copied together: a step's rows stay in memory
# until the last of its requests lets go of them.
_STEPS = 64
# So many times that may wait to be done before the engine does.
_WAITING = 256


@dataclass(frozen=True, slots=True, eq=False)
class StepTaken:
    """What one step took, of all requests together; all tensors on the host once `ready`.

    `hit` says for each token which captures want it, a bit each; `rows` are by group.
    """

    hit: torch.Tensor  # [T] int64
    position: torch.Tensor  # [T] int64
    token_id: torch.Tensor  # [T] int64
    rows: Mapping[int, torch.Tensor]  # [P, n, H], in the order of the tokens that a group takes
    ready: torch.cuda.Event | None = None
    _wanted: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)

    def wanted(self, bits: int) -> npt.NDArray[np.int64]:
        """Return how many tokens captures of these bits want before each, and in all: [T + 1]."""
        if bits not in self._wanted:
            mine = (self.hit.numpy() & signed(bits)) != 0
            self._wanted[bits] = np.concatenate([[0], np.cumsum(mine, dtype=np.int64)])
        return self._wanted[bits]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of one request at the sites of one group, with the labels of each."""

    hit: torch.Tensor  # [n] int64
    position: torch.Tensor  # [n] int64
    token_id: torch.Tensor  # [n] int64
    rows: torch.Tensor  # [P, n, H]


# What a step took, and which of its tokens are a request's: `start` to before `stop`.
_Steps: TypeAlias = Sequence[tuple[StepTaken, int, int]]


class Joiner:
    """The thread that copies rows together; the engine waits only where it is far behind."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "interv-rows", use_one_core)
        self._free = threading.BoundedSemaphore(_WAITING)

    def submit(self, taken: RequestTaken, steps: _Steps) -> Future[Mapping[int, Rows]]:
        """Have the rows of some steps of a request copied together."""
        self._free.acquire()
        later = self._thread.submit(taken.joined, steps)
        later.add_done_callback(lambda _: self._free.release())
        return later


@dataclass(slots=True, eq=False)
class RequestTaken:
    """The rows of one request so far: those of earlier steps, by times, and the steps since."""

    groups: Sequence[int]  # the captures of each group, a bit each
    own: int  # the captures that the request has
    joiner: Joiner
    earlier: list[Future[Mapping[int, Rows]]] = field(default_factory=list)
    steps: list[tuple[StepTaken, int, int]] = field(default_factory=list)  # and its tokens

    def add(self, step: StepTaken, start: int, stop: int) -> None:
        """Add the rows that a step took of the request's tokens, `start` to before `stop`."""
        self.steps.append((step, start, stop))
        if len(self.steps) >= _STEPS:
            steps, self.steps = self.steps, []
            self.earlier.append(self.joiner.submit(self, steps))

    def together(self) -> Mapping[int, Rows]:
        """Put the rows of all steps together, and return them by group."""
        times = [*(one.result() for one in self.earlier), self.joined(self.steps)]
        groups = sorted({group for rows in times for group in rows})
        return {group: _joined([one[group] for one in times if group in one]) for group in groups}

    def joined(self, steps: _Steps) -> Mapping[int, Rows]:
        """Return the rows of some steps by group, copied, once they are on the host."""
        for step in {id(one[0]): one[0] for one in steps}.values():
            if step.ready is not None:
                step.ready.synchronize()
        found = {}
        for group, bits in enumerate(self.groups):
            parts = [_slice(*one, group, bits) for one in steps if group in one[0].rows]
            if bits & self.own and parts:
                found[group] = _joined(parts)
        return found


def _slice(step: StepTaken, start: int, stop: int, group: int, bits: int) -> Rows:
    """Return what a group took of some tokens of a step."""
    before = step.wanted(bits)
    mine = torch.from_numpy(np.flatnonzero(np.diff(before[start : stop + 1])) + start)
    rows = step.rows[group][:, before[start] : before[stop]]
    return Rows(step.hit[mine], step.position[mine], step.token_id[mine], rows)


def _joined(parts: Sequence[Rows]) -> Rows:
    """Join rows, one a position, in order of position.

    A position comes again where a request is resumed after a preemption, or where a draft token
    was rejected: then the last one is the token that the request really has there.
    """
    position = torch.cat([one.position for one in parts])
    order = np.argsort(position.numpy(), kind="stable")
    ordered = position.numpy()[order]
    last = np.append(ordered[1:] != ordered[:-1], True) if len(ordered) else np.zeros(0, bool)
    kept = torch.from_numpy(order[last])
    return Rows(
        torch.cat([one.hit for one in parts])[kept],
        position[kept],
        torch.cat([one.token_id for one in parts])[kept],
        torch.cat([one.rows for one in parts], dim=1)[:, kept],
    )


def chosen(rows: Rows, bit: int, before: int) -> npt.NDArray[np.int64]:
    """Return which rows a capture takes of a request whose last fed position is before `before`."""
    mine = (rows.hit.numpy() >> bit) & 1 == 1
    return np.flatnonzero(mine & (rows.position.numpy() < before))
