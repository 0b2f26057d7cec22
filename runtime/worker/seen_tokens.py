"""What selectors that follow markers need of the tokens a request has had, on the device.

For each request that follows any, its last ids and what was open after them, by position: rings
that the tokens of a step are written into when they are fed. A draft that was rejected is written
over when its position is fed again, so nothing has to be taken back. A request that starts, or
resumes after a preemption, gets its rings from the ids that the host knows, those of a cached
prefix.

Dims: `T` tokens of a step, `R` requests, `Z` positions that a ring holds, `W` rows of the rings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from interv.document.markers import LONGEST_MARKER, Following, Opening, opening_of
from interv.passes.graph.along import NO_ID, Along, Walk
from interv.passes.graph.selector_masks import Tokens

_NOBODY = 0  # the row of requests that follow nothing, and of what is not kept
_SPARE_OPENINGS = 64


class _Step(Protocol):
    @property
    def starts(self) -> npt.NDArray[np.int32]: ...
    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def anew(self) -> Mapping[int, Callable[[], Sequence[int]]]: ...


def ring_size(taken_back: int) -> int:
    """Return how many positions a ring holds where so many tokens of a step may be wrong drafts."""
    return 1 << (LONGEST_MARKER + taken_back).bit_length()


class SeenTokens:
    """The rings of one worker's requests."""

    def __init__(self, device: torch.device, size: int) -> None:
        """`size` is `Z`: at least the longest marker and the tokens that may be taken back."""
        self.size = size
        self._device = device
        self._rows: dict[str, int] = {}
        self._follows: dict[str, tuple[Opening, ...]] = {}
        self._free: list[int] = []
        self.ids = torch.full((1, self.size), NO_ID, dtype=torch.int64, device=device)  # [W, Z]
        self.open: dict[Opening, Tensor] = {}  # each [W, Z] bool

    def forget(self, names: Iterable[str]) -> None:
        """Let requests that ended go."""
        for name in names:
            if name in self._rows:
                self._free.append(self._rows.pop(name))
                del self._follows[name]

    def follow(self, step: _Step, fed: Tokens, wanted: Sequence[tuple[Following, ...]]) -> Seen:
        """Return what came before the tokens of a step; request r follows `wanted[r]`."""
        rows = np.full(len(wanted), _NOBODY, dtype=np.int64)
        for r, leaves in enumerate(wanted):
            if leaves:
                rows[r] = self._row(step, r, leaves)
        counts = np.diff(step.starts)
        begins, ends = step.starts[:-1].astype(np.int64), step.starts[1:].astype(np.int64)
        placed = torch.from_numpy(np.repeat(np.stack([begins, ends, rows]), counts, axis=1))
        first, end, row = placed.to(self._device, non_blocking=True)
        openings = dict.fromkeys(opening_of(leaf) for leaves in wanted for leaf in leaves)
        return Seen(self, fed, _Placed(first, end, row), tuple(openings))

    def _row(self, step: _Step, r: int, leaves: Sequence[Following]) -> int:
        name = step.ids[r]
        if r in step.anew:
            earlier = step.anew[r]()
            self._start(name, leaves, earlier)
        # One that is not known had no token here yet, and then the runner would have said so.
        return self._rows[name]

    def _start(self, name: str, leaves: Sequence[Following], earlier: Sequence[int]) -> None:
        openings = tuple(dict.fromkeys(map(opening_of, leaves)))
        self._follows[name] = openings
        self._make_room(name, openings)
        row, count = self._rows[name], len(earlier)
        if not count:
            return
        near = range(max(count - self.size, 0), count)
        places = torch.tensor([one % self.size for one in near]).to(self._device, non_blocking=True)
        last = torch.tensor([int(earlier[one]) for one in near])
        self.ids[row, places] = last.to(self._device, non_blocking=True)
        was_open = Walk(leaves).open(earlier, count)
        for one in openings:
            self.open[one][row, (count - 1) % self.size] = one in was_open

    def _make_room(self, name: str, openings: Collection[Opening]) -> None:
        if len(self.open) > _SPARE_OPENINGS:
            held = {one for each in self._follows.values() for one in each}
            self.open = {one: ring for one, ring in self.open.items() if one in held}
        if name not in self._rows:
            if not self._free:
                self._grow()
            self._rows[name] = self._free.pop()
        for one in openings:
            if one not in self.open:
                self.open[one] = torch.zeros_like(self.ids, dtype=torch.bool)

    def _grow(self) -> None:
        before = len(self.ids)
        self.ids = torch.cat([self.ids, torch.full_like(self.ids, NO_ID)])
        self.open = {one: torch.cat([ring, ring]) for one, ring in self.open.items()}
        self._free += range(before, 2 * before)


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """Where tokens stand in their step; each `[T]` int64."""

    first: Tensor  # of the token's request
    end: Tensor  # behind the last of it
    row: Tensor


class Seen(Along):
    """The tokens of a step behind those that their requests had."""

    def __init__(
        self, seen: SeenTokens, fed: Tokens, placed: _Placed, openings: tuple[Opening, ...]
    ) -> None:
        super().__init__(fed.token_id, placed.first)
        self._seen, self._placed, self._openings = seen, placed, openings
        self._position = fed.position
        self._last = fed.position - (self._index - placed.first) - 1  # before the step

    def before(self, back: int) -> Tensor:
        """Return the id `back` tokens before each, `[T]`, from the rings."""
        at = self._position - back
        return torch.where(at >= 0, self._held(self._seen.ids, at), NO_ID)

    def was_open(self, opening: Opening) -> Tensor:
        """Say whether something was open before this step, bool `[T]`, from the rings."""
        return (self._last >= 0) & self._held(self._seen.open[opening], self._last)

    def _held(self, ring: Tensor, position: Tensor) -> Tensor:
        return ring[self._placed.row, position % self._seen.size]

    def keep(self) -> None:
        """Write the step's tokens into the rings, so many of each request as they hold."""
        near = self._placed.end - self._index <= self._seen.size
        row = torch.where(near, self._placed.row, _NOBODY)
        place = self._position % self._seen.size
        found = {one: self.open(one) for one in self._openings}
        self._seen.ids[row, place] = self._ids
        for one, is_open in found.items():
            self._seen.open[one][row, place] = is_open
