"""The workers learn of captured requests that have ended, before their answers leave.

So an answer with a handle says that its rows outlive the worker.
"""

from __future__ import annotations

import contextlib
from typing import Any

from interv.runtime.scheduler import waiting

# How long an engine that ends waits for workers that may be gone.
_LAST_WORD_S = 5.0


def step(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Tell the workers which captured requests have ended; wraps the steps of `EngineCore`."""
    result = original(self, *args, **kwargs)
    _tell(self)
    return result


def abort_requests(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Do so when requests are aborted, also while no other runs."""
    result = waiting.abort_requests(original, self, *args, **kwargs)
    _tell(self)
    return result


def shutdown(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Do so for those that the engine itself has aborted at its end."""
    # Its workers may be what has failed.
    with contextlib.suppress(Exception):
        _tell(self, _LAST_WORD_S)
    return original(self, *args, **kwargs)


def _tell(core: Any, timeout_s: float | None = None) -> None:
    own = getattr(core.scheduler, "interv", None)
    ended = own.take_ended() if own is not None else []
    if ended:
        # Nobody comes soon whose records could be stored together with these.
        idle = not core.scheduler.has_unfinished_requests()
        core.model_executor.collective_rpc("interv_ended", timeout_s, args=(ended, idle))
