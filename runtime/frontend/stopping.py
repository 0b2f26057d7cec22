"""A process that ends an engine gives its sinks time: a server, a script, a signal."""

from __future__ import annotations

import signal
import sys
import threading
import weakref
from types import FrameType
from typing import Any

from interv.runtime import compat
from interv.runtime.config import InterventionConfig

# What an engine needs beside its sinks, from the step that runs to the end of its workers.
_MORE_S = 8.0


def start_engines(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """Note how long engines that capture get to end; wraps the manager of their processes."""
    config = kwargs.get("vllm_config")
    self.interv_stop_s = None
    if _captures(getattr(config, "additional_config", None)):
        self.interv_stop_s = compat.stop_s() + _MORE_S
    original(self, *args, **kwargs)
    # At the end of a script nobody calls `shutdown`.
    if self.interv_stop_s is not None and (found := self._finalizer.detach()) is not None:
        of, function, given, _ = found
        self._finalizer = weakref.finalize(of, function, *given, timeout=self.interv_stop_s)


def stop_engines(original: Any, self: Any, timeout: float | None = None) -> Any:
    """Give engines that capture the time to store it: by default a server kills its own at once.

    It is a bound: an engine that has ended is not waited for.
    """
    least = getattr(self, "interv_stop_s", None)
    return original(self, timeout=timeout if least is None else max(timeout or 0.0, least))


def end_on_sigterm(carried: InterventionConfig) -> None:
    """Let SIGTERM end a script that captures as `sys.exit` does, where nobody else handles it."""
    if threading.current_thread() is not threading.main_thread() or not _captures(carried):
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    # Once: who sends it again does not want to wait.
    signal.signal(number, signal.SIG_DFL)
    sys.exit(128 + number)


def _captures(carried: Any) -> bool:
    return isinstance(carried, InterventionConfig) and bool(carried.bundle.captures)
