"""Have something called around a method: of one object, or of a class of vLLM."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_DONE = "_interv_seam"


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Have `around(original, …)` called for a method of one object."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(owner, name, method)


def wrap_seam(owner: Any, name: str, wrapper: Any, kind: Any = None) -> None:
    """Replace a method by `wrapper(original, …)`, once; another wrapper goes around this one."""
    original = getattr(owner, name)
    # A class method is wrapped below its binding, so that subclasses still bind to themselves.
    inner = original.__func__ if kind is classmethod else getattr(original, "fget", original)
    done: tuple[Any, ...] = getattr(inner, _DONE, ())
    if wrapper in done:
        return

    @functools.wraps(inner)
    def method(*args: Any, **kwargs: Any) -> Any:
        return wrapper(inner, *args, **kwargs)

    setattr(method, _DONE, (*done, wrapper))
    setattr(owner, name, kind(method) if kind else method)
