"""Clients of a server that wait for results: so many at once, on its event loop, and no threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
MOST = 256
# How often is looked: soon at first, then less and less; and how often who asked is looked for.
_LOOK_S, _LOOK_LESS, _LONGEST_LOOK_S = 0.005, 1.3, 0.1
_GONE_S = 0.25


class TooMany(Exception):
    """As many clients wait as may."""


class Gone(Exception):
    """Who waited has hung up."""


class Waiters:
    """At most `most` clients that wait; each gives its place back when it hangs up."""

    def __init__(self, most: int = MOST) -> None:
        self._most, self.waiting = most, 0

    async def wait(self, look: Callable[[], T | None], request: Any, wait_s: float) -> T | None:
        """Return what `look` finds, None where it finds nothing within `wait_s` seconds.

        Looking once takes no place. Raises `TooMany` and `Gone`.
        """
        found = look()
        if found is not None or wait_s <= 0:
            return found
        if self.waiting >= self._most:
            raise TooMany
        self.waiting += 1
        try:
            return await self._wait(look, request, time.monotonic() + wait_s)
        finally:
            self.waiting -= 1

    async def _wait(self, look: Callable[[], T | None], request: Any, until: float) -> T | None:
        pause, seen = _LOOK_S, time.monotonic()
        while (found := look()) is None and (left := until - time.monotonic()) > 0:
            if time.monotonic() - seen > _GONE_S:
                if await request.is_disconnected():
                    raise Gone
                seen = time.monotonic()
            await asyncio.sleep(min(pause, left))
            pause = min(pause * _LOOK_LESS, _LONGEST_LOOK_S)
        return found
