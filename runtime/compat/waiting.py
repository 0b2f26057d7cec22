"""How a request that waits is held in the scheduler's queue, in each version that has one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from interv.runtime.compat.classes import scheduler_class
from interv.runtime.compat.lookup import way
from interv.runtime.compat.seams_scheduler import WAITING

# Whether a scheduler may let a waiting request run in this step; asked once a step and request.
Admits: TypeAlias = Callable[[Any, Any], bool]

_HELD = "interv_held"


@functools.cache
def waiting_seams(admits: Admits) -> Iterable[tuple[Any, str, Any]]:
    """Return what has `admits` asked for each request that waits, before vLLM's own conditions.

    One that it refuses stays where it is in the queue, and those behind it are looked at.
    """
    scheduler = scheduler_class()
    if way(WAITING) == 0:
        return [(scheduler, "_handle_blocked_waiting_request", handle(admits))]
    return [
        (scheduler, "_select_waiting_queue_for_scheduling", select(admits)),
        (scheduler, "_is_blocked_waiting_status", is_blocked),
        (scheduler, "_try_promote_blocked_waiting_request", promote),
    ]


def handle(admits: Admits) -> Any:
    """From 0.31 on one method says whether a request is ready."""

    def handled(original: Any, self: Any, request: Any, *args: Any, **kwargs: Any) -> bool:
        return admits(self, request) and bool(original(self, request, *args, **kwargs))

    return handled


def select(admits: Admits) -> Any:
    """Before, the next request is the head of the queue that is chosen, and is asked about here.

    Between this and the two below nothing else is called, so the note means that request.
    """

    def selected(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        queue = original(self, *args, **kwargs)
        setattr(self, _HELD, bool(queue) and not admits(self, queue.peek_request()))
        return queue

    return selected


def is_blocked(original: Any, self: Any, status: Any) -> bool:
    """Say that the request is not ready, where it is held; vLLM's own is a static method."""
    return getattr(self, _HELD, False) or bool(original(status))


def promote(original: Any, self: Any, request: Any, *args: Any, **kwargs: Any) -> bool:
    """Leave a request that is held as it is; vLLM's own knows blocked ones only."""
    if getattr(self, _HELD, False):
        setattr(self, _HELD, False)
        return False
    return bool(original(self, request, *args, **kwargs))
