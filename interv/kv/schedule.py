"""When a request is compacted: a pure function of its prompt's length and its token count.

A request is compacted first when its prompt is done and the cache holds `budget + buffer` tokens
of it, and again after every `buffer` further tokens. So the scheduler and every worker know from
the count alone how many tokens were dropped, without a message; and a request that was preempted
is compacted at the same counts when it is computed again, since no forward pass crosses one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from interv.kv.settings import KvSettings


@dataclass(frozen=True, slots=True)
class Schedule:
    """The compaction points of one request, in counts of its tokens.

    `first` is the first point, `window` how many queries before a point its compaction looks at.
    """

    first: int
    budget: int
    buffer: int
    window: int

    @classmethod
    def of(cls, settings: KvSettings, prompt_length: int) -> Schedule:
        """Return the points of a request with a prompt of that length."""
        least = settings.limit
        first = least if settings.prefill else max(prompt_length, least)
        return cls(first, settings.budget, settings.buffer, settings.window)

    def is_point(self, count: int) -> bool:
        """Say whether a request of `count` computed tokens is compacted before its next one."""
        return count >= self.first and (count - self.first) % self.buffer == 0

    def dropped(self, count: int) -> int:
        """Return how many of `count` tokens are dropped, a compaction at that count included."""
        if count < self.first:
            return 0
        return self.last_point(count) - self.budget

    def held(self, count: int) -> int:
        """Return how many tokens the cache holds before a compaction at `count`."""
        return count - self.dropped(count - 1)

    def last_point(self, count: int) -> int:
        """Return the point at or before `count`, which must not lie before the first."""
        assert count >= self.first
        return count - (count - self.first) % self.buffer

    def next_point(self, count: int) -> int:
        """Return the first point after `count`."""
        return self.first if count < self.first else self.last_point(count) + self.buffer

    def clip(self, count: int, new: int) -> int:
        """Return how many of `new` tokens may follow `count` without crossing a point."""
        return min(new, self.next_point(count) - count)

    def most_cached(self) -> int:
        """Return how many tokens may come from the prefix cache.

        The queries before the first point have to be computed for it.
        """
        return self.first - self.window


def dropped(
    settings: KvSettings, first: npt.NDArray[np.int64], counts: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    """Return `Schedule.dropped` of requests `[R]` with these first points and counts."""
    behind = counts - first
    last = counts - behind % settings.buffer
    return np.where(behind >= 0, last - settings.budget, 0).astype(np.int64)


def at_point(
    settings: KvSettings, first: npt.NDArray[np.int64], counts: npt.NDArray[Any]
) -> npt.NDArray[np.bool_]:
    """Return `Schedule.is_point` of requests `[R]`."""
    behind = counts - first
    found: npt.NDArray[np.bool_] = (behind >= 0) & (behind % settings.buffer == 0)
    return found


def next_points(
    settings: KvSettings, first: npt.NDArray[np.int64], counts: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    """Return `Schedule.next_point` of requests `[R]`."""
    behind = counts - first
    later = counts - behind % settings.buffer + settings.buffer
    return np.where(behind >= 0, later, first).astype(np.int64)
