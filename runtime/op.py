"""`torch.ops.interv.update(hidden, residual, site)`: the opaque op that a spliced graph calls.

The op carries a site's name and no data, so graphs may be serialised, cached and captured. Which
engine's buffers it means is set by the model runner around each forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch

from interv.errors import IntervError

if TYPE_CHECKING:
    from interv.runtime.engine import Engine

_RUNNING: ContextVar[Engine | None] = ContextVar("interv_running", default=None)

# Kept for as long as the process lives: the op goes away with its library.
_LIBRARY = torch.library.Library("interv", "DEF")
_LIBRARY.define("update(Tensor(a!) hidden, Tensor? residual, str site) -> ()")


def _update(hidden: torch.Tensor, residual: torch.Tensor | None, site: str) -> None:
    engine = _RUNNING.get()
    if engine is None:
        raise IntervError(
            "E520",
            f"the edit at {site} was reached outside a model runner that interv knows",
            notes=["the answer would be unedited, so the step is stopped"],
        )
    engine.update(site, hidden, residual)


def _fake(hidden: torch.Tensor, residual: torch.Tensor | None, site: str) -> None:
    """Trace the op: it returns nothing and writes `hidden`, as its schema says."""


for _key in ("CPU", "CUDA"):
    _LIBRARY.impl("update", _update, _key)
_LIBRARY._register_fake("update", _fake)

UPDATE = torch.ops.interv.update.default


@contextmanager
def running(engine: Engine) -> Iterator[None]:
    """Let the op mean this engine's buffers inside the block."""
    token = _RUNNING.set(engine)
    try:
        yield
    finally:
        _RUNNING.reset(token)
