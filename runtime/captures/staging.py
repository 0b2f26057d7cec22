"""What one worker captures: which tokens of a step, into which rows, and whose they are.

The compiled graph copies the rows of each site into `stage`; after the step they go to the host
with their labels, by request. When a request has ended, its rows are handed over.

Dims: `C` captures, `T` tokens, `M` the most tokens of a step, `R` requests, `H` hidden size.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from interv.codegen.bundle import Bundle
from interv.codegen.kernels.registry import runnable
from interv.codegen.kernels.rows import CopyRows, StepRows, rows_form
from interv.codegen.slot import signed
from interv.document.sites import Site
from interv.runtime.captures.rows import Joiner, RequestTaken, StepTaken
from interv.runtime.choice import Choice


@dataclass(frozen=True, slots=True)
class Point:
    """Where rows are taken: at a site, before its edits or after them."""

    site: Site
    after: bool


@dataclass(frozen=True, slots=True)
class Group:
    """The points that the same captures take rows at: their rows are of the same tokens."""

    captures: int  # a bit each
    points: tuple[Point, ...]


def groups_of(bundle: Bundle, layers: range) -> tuple[Group, ...]:
    """Return where a bundle captures in these layers, points of the same captures together."""
    wanted: dict[Point, int] = {}
    for bit, one in enumerate(bundle.captures):
        for site in (site for site in one.sites if site.layer in layers):
            point = Point(site, one.after)
            wanted[point] = wanted.get(point, 0) | 1 << bit
    found: dict[int, list[Point]] = {}
    for point, captures in wanted.items():
        found.setdefault(captures, []).append(point)
    return tuple(Group(captures, tuple(points)) for captures, points in found.items())


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that ended, as the scheduler knows it."""

    request: str  # the engine's own id
    tokens: int  # prompt and generated
    prompt_tokens: int
    finished: bool  # False where it was aborted
    error: str = ""  # why its rows are not to be used


class HandOver(Protocol):
    """Takes what was captured."""

    def hand_over(self, ended: Ended, choice: Choice, taken: RequestTaken) -> None:
        """Take what was captured of a request that ended."""

    def flush(self) -> None:
        """Store what was handed over so far without waiting for more."""


class Captures:
    """The captures of one worker's steps."""

    def __init__(
        self,
        bundle: Bundle,
        groups: tuple[Group, ...],
        device: torch.device,
        dtype: torch.dtype,
        max_tokens: int,
        deliveries: HandOver,
    ) -> None:
        self.groups = groups
        self._bits = [group.captures for group in self.groups]
        self._tables, self._device = bundle.captures, device
        self._deliveries = deliveries
        self._steps = [
            StepRows(torch.full((max_tokens,), -1, dtype=torch.int32, device=device))
            for _ in self.groups
        ]
        # One piece for each group, so that a step's rows leave in one copy a group.
        self._stages = [
            torch.empty(len(g.points), max_tokens, bundle.hidden_size, dtype=dtype, device=device)
            for g in self.groups
        ]
        self._copies = self._forms(runnable(device)[0])
        self._taken: dict[str, tuple[Choice, RequestTaken]] = {}
        self._joiner = Joiner()
        self._step: _Step | None = None

    def _forms(self, best: str) -> dict[tuple[str, bool], CopyRows]:
        return {
            (str(point.site), point.after): rows_form(best, step, stage[p])
            for group, step, stage in zip(self.groups, self._steps, self._stages, strict=True)
            for p, point in enumerate(group.points)
        }

    def selectors(self, choices: Sequence[Choice]) -> int:
        """Return the selectors that the captures of these requests look at, a bit each."""
        own = _union(one.captures for one in choices)
        return _union(1 << t.selector for bit, t in enumerate(self._tables) if own >> bit & 1)

    def begin(self, step: Any, mask: torch.Tensor) -> None:
        """Choose the tokens of a step by their selector bits, `mask` `[T]` int64."""
        own = [one.captures for one in step.choices]
        used = _union(own)
        if not used:
            return
        counts = np.diff(step.starts)
        held = np.array([signed(one) for one in own], dtype=np.int64)
        hit = self._hit(mask, used)
        hit &= torch.from_numpy(np.repeat(held, counts)).to(self._device, non_blocking=True)
        for bits, rows in zip(self._bits, self._steps, strict=True):
            if bits & used:
                self._choose(rows, (hit & signed(bits)) != 0)
        self._step = _Step(step, hit, used, int(counts[held != 0].sum()))

    def _hit(self, mask: torch.Tensor, used: int) -> torch.Tensor:
        """Return which captures' selectors hold for each token, a bit each, `[T]` int64."""
        hit = torch.zeros_like(mask)
        for bit, one in enumerate(self._tables):
            if used >> bit & 1:
                hit |= ((mask >> one.selector) & 1) * signed(1 << bit)
        return hit

    def _choose(self, rows: StepRows, wanted: torch.Tensor) -> None:
        if self._device.type == "cpu":
            rows.chosen = wanted.nonzero().flatten()
        place = torch.cumsum(wanted, 0, dtype=torch.int32) - 1
        rows.target[: len(wanted)] = torch.where(wanted, place, -1)

    def copy(
        self, site: str, after: bool, hidden: torch.Tensor, residual: torch.Tensor | None
    ) -> None:
        """Copy the wanted rows of a site; called from the compiled graph.

        The stream `[T, H]` is `hidden + residual`, or `hidden` alone.
        """
        copy = self._copies.get((site, after))
        if copy is not None:
            copy(hidden, residual)

    def collect(self) -> None:
        """Take the rows of the step that has run to the host, for the requests they are of."""
        if self._step is None:
            return
        step, used = self._step.step, self._step.used
        taken = self._step_taken(self._step.hit, used)
        self._step = None
        # How many wanted tokens stand before each; unknown where they are still on their way.
        known = taken is not None and taken.ready is None
        wanted = np.cumsum(taken.hit.numpy() != 0) if taken and known else None
        for r, (name, choice) in enumerate(zip(step.ids, step.choices, strict=True)):
            if choice.captures:
                # Known from its first step on, so that one without a row has a result too.
                own = self._of(name, choice)
                start, stop = int(step.starts[r]), int(step.starts[r + 1])
                if taken and (wanted is None or _some(wanted, start, stop)):
                    own.add(taken, start, stop)

    def _of(self, name: str, choice: Choice) -> RequestTaken:
        known = self._taken.get(name)
        if known is None:
            known = self._taken[name] = (
                choice,
                RequestTaken(self._bits, choice.captures, self._joiner),
            )
        return known[1]

    def _step_taken(self, hit: torch.Tensor, used: int) -> StepTaken | None:
        """Return the rows of all groups with their labels, None where no token was wanted.

        On a CPU the rows are counted; elsewhere as many are copied as there are tokens of requests
        that capture, and what they are is read when they have arrived.
        """
        assert self._step is not None
        here = self._device.type == "cpu"
        tokens, most, step = len(hit), self._step.most, self._step.step
        rows = {}
        for g, (bits, own) in enumerate(zip(self._bits, self._steps, strict=True)):
            count = len(own.chosen) if here and own.chosen is not None else most
            if bits & used and count:
                rows[g] = _to_host(self._stages[g][:, :count])
        if not rows:
            return None
        position, token_id = (
            _to_host(one[:tokens].long()) for one in (step.position, step.token_id)
        )
        ready = None
        if not here:
            ready = torch.cuda.Event()
            ready.record()
        return StepTaken(_to_host(hit), position, token_id, rows, ready)

    def clear(self) -> None:
        """Capture nothing: for warm-up and the end of a step."""
        for rows in self._steps:
            rows.clear()
        self._step = None

    def end(self, ended: Sequence[Ended], idle: bool = False) -> None:
        """Hand over what was captured of requests that ended; `idle` if no other one runs."""
        for one in ended:
            choice, taken = self._taken.pop(one.request, (None, None))
            if choice is not None and taken is not None:
                self._deliveries.hand_over(one, choice, taken)
        if idle:
            self._deliveries.flush()


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A step while it runs."""

    step: Any
    hit: torch.Tensor
    used: int
    most: int  # tokens of requests that capture


def _some(wanted: npt.NDArray[np.int64], start: int, stop: int) -> bool:
    before = wanted[start - 1] if start else 0
    return bool(wanted[stop - 1] > before)


def _union(bits: Iterable[int]) -> int:
    return functools.reduce(operator.or_, bits, 0)


def _to_host(source: torch.Tensor) -> torch.Tensor:
    """Copy a tensor to the host without waiting for its device."""
    if source.device.type == "cpu":
        return source.clone()
    target = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
    return target.copy_(source, non_blocking=True)
