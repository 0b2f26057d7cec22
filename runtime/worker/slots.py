"""Slots: which row of the tables holds what a request resolves to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from interv.errors import IntervError


class Slots:
    """At most `size` keys at once; equal keys share a slot, and what a step needs stays.

    A slot is kept after its last request until another key needs it, so that a request which
    was preempted, or the next one like it, finds it filled.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._slot: dict[str, int] = {}
        self._unused = list(range(size))

    def place(self, keys: Sequence[str]) -> tuple[npt.NDArray[np.int32], list[tuple[str, int]]]:
        """Return the slot of each key of a step, -1 for "", and the slots that must be filled.

        Raises IntervError E523 for more different keys than slots, which the scheduler prevents.
        """
        missing = [key for key in dict.fromkeys(keys) if key and key not in self._slot]
        new: list[tuple[str, int]] = []
        if missing:
            new = list(zip(missing, self._free({*keys} - {""}, len(missing)), strict=True))
            self._slot.update(new)
        slots = [self._slot[key] if key else -1 for key in keys]
        return np.array(slots, dtype=np.int32), new

    def forget(self, slots: Collection[int]) -> None:
        """Take for unfilled what lies in these slots."""
        gone = {slot: key for key, slot in self._slot.items() if slot in slots}
        for slot, key in gone.items():
            del self._slot[key]
            self._unused.append(slot)

    def _free(self, needed: set[str], count: int) -> list[int]:
        """Return `count` slots, never used ones first, then those that this step does not need."""
        if len(needed) > self.size:
            raise IntervError(
                "E523",
                f"{len(needed)} configurations are in one step, {self.size} slots exist",
                notes=["a request would run unedited, so the step is stopped"],
            )
        free, self._unused = self._unused[:count], self._unused[count:]
        return free + [self._slot.pop(key) for key in self._idle(needed, count - len(free))]

    def _idle(self, needed: set[str], count: int) -> Sequence[str]:
        idle: Iterator[str] = (key for key in self._slot if key not in needed)
        return [key for key, _ in zip(idle, range(count), strict=False)]

    @property
    def used(self) -> int:
        """Return how many slots are filled."""
        return len(self._slot)
