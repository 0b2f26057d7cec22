"""Slots: the rows of the tables that requests point at, shared by content and counted."""

from __future__ import annotations

from collections.abc import Hashable


class Slots:
    """Hand out at most `size` slots; equal keys share one, and a slot is reused when free.

    A key is what a request resolves to. `acquire` returns None when every slot is in use: the
    request must wait, it may not run unedited.
    """

    def __init__(self, size: int) -> None:
        self._free = list(range(size - 1, -1, -1))
        self._slot: dict[Hashable, int] = {}
        self._users: dict[Hashable, int] = {}

    def acquire(self, key: Hashable) -> tuple[int, bool] | None:
        """Return the key's slot and whether it is new (must be written), or None."""
        if key in self._slot:
            self._users[key] += 1
            return self._slot[key], False
        if not self._free:
            return None
        self._slot[key] = self._free.pop()
        self._users[key] = 1
        return self._slot[key], True

    def release(self, key: Hashable) -> None:
        """Give one use of the key's slot back; the last one frees it."""
        self._users[key] -= 1
        if self._users[key] == 0:
            del self._users[key]
            self._free.append(self._slot.pop(key))

    @property
    def used(self) -> int:
        """Return how many slots are in use."""
        return len(self._slot)
