"""`torch.ops.interv.update(hidden, residual, site)`: the opaque op that a spliced graph calls.

The op carries a site's name and no data, so graphs may be serialised, cached and captured. Which
engine's buffers it means is set by the model runner around each forward pass. `update_norm` is the
same with the add-RMSNorm that follows, for graphs that have that as one op.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch

from interv.codegen.kernels.norm import Norm
from interv.errors import IntervError
from interv.passes.captured.absorb_norm import NormOps
from interv.passes.captured.norm_rounding import Rounding

if TYPE_CHECKING:
    from interv.runtime.worker.engine import Engine

_RUNNING: ContextVar[Engine | None] = ContextVar("interv_running", default=None)

# Kept for as long as the process lives: the op goes away with its library.
_LIBRARY = torch.library.Library("interv", "DEF")
_LIBRARY.define("update(Tensor(a!) hidden, Tensor? residual, str site) -> ()")
_NORM = "Tensor? weight, float epsilon, int rounding, str site"
_LIBRARY.define(f"update_norm(Tensor hidden, Tensor residual, {_NORM}) -> (Tensor, Tensor)")
_LIBRARY.define(f"update_norm.in_place(Tensor(a!) hidden, Tensor(b!) residual, {_NORM}) -> ()")


def running_engine(what: str) -> Engine:
    """Return the engine of the forward pass that is running; raise E520 where there is none."""
    engine = _RUNNING.get()
    if engine is None:
        raise IntervError(
            "E520",
            f"{what} was reached outside a model runner that interv knows",
            notes=["the answer would be unedited, so the step is stopped"],
        )
    return engine


def _running(site: str) -> Engine:
    return running_engine(f"the edit at {site}")


def _update(hidden: torch.Tensor, residual: torch.Tensor | None, site: str) -> None:
    _running(site).update(site, hidden, residual)


def _update_norm(
    hidden: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    rounding: int,
    site: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    normed, carried = torch.empty_like(hidden), torch.empty_like(hidden)
    norm = Norm(weight, epsilon, Rounding(rounding))
    _running(site).update_norm(site, hidden, residual, norm, normed, carried)
    return normed, carried


def _update_norm_in_place(
    hidden: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    rounding: int,
    site: str,
) -> None:
    norm = Norm(weight, epsilon, Rounding(rounding))
    _running(site).update_norm(site, hidden, residual, norm, hidden, residual)


def _fake(hidden: torch.Tensor, residual: torch.Tensor | None, site: str) -> None:
    """Trace the op: it returns nothing and writes `hidden`, as its schema says."""


def _fake_norm(hidden: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Trace the op: both results have the dtype of `hidden`, whatever the residual's is."""
    return torch.empty_like(hidden), torch.empty_like(hidden)


def _fake_norm_in_place(*_: object) -> None:
    """Trace the op: it returns nothing and writes `hidden` and `residual`."""


for _key in ("CPU", "CUDA"):
    _LIBRARY.impl("update", _update, _key)
    _LIBRARY.impl("update_norm", _update_norm, _key)
    _LIBRARY.impl("update_norm.in_place", _update_norm_in_place, _key)
_LIBRARY._register_fake("update", _fake)
_LIBRARY._register_fake("update_norm", _fake_norm)
_LIBRARY._register_fake("update_norm.in_place", _fake_norm_in_place)

UPDATE = torch.ops.interv.update.default
UPDATE_NORM = NormOps(torch.ops.interv.update_norm.default, torch.ops.interv.update_norm.in_place)


@contextmanager
def running(engine: Engine) -> Iterator[None]:
    """Let the op mean this engine's buffers inside the block."""
    token = _RUNNING.set(engine)
    try:
        yield
    finally:
        _RUNNING.reset(token)
