"""`torch.ops.interv.update(hidden, residual, site)`: the opaque op that a spliced graph calls.

The op carries a site's name and no data, so graphs may be serialised, cached and captured. Which
engine's buffers it means is set by the model runner around each forward pass. `update_norm` is the
same with the add-RMSNorm that follows, for graphs that have that as one op. Of each there is a form
that takes the name of a layer as an input of the graph, and the kind of the site: pieces of a graph
that differ by their blocks alone stay equal, and are compiled once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch

from interv.codegen.kernels.norm import Norm
from interv.document.sites import Site
from interv.errors import IntervError
from interv.passes.captured.absorb_norm import NormOps
from interv.passes.captured.block_names import number_in
from interv.passes.captured.norm_rounding import Rounding
from interv.passes.captured.splice import UpdateOps
from interv.runtime import compat

if TYPE_CHECKING:
    from interv.runtime.worker.engine import Engine

_RUNNING: ContextVar[Engine | None] = ContextVar("interv_running", default=None)

# Kept for as long as the process lives: the op goes away with its library.
_LIBRARY = torch.library.Library("interv", "DEF")
_SITES = {"": "str site"}
if (_NAME := compat.layer_name_type()) is not None:
    _SITES["block"] = f"{_NAME} block, str kind"


def _define(name: str, form: str, arguments: str, returns: str) -> str:
    """Declare an op in a form, and return what it is called."""
    full = f"{name}.{form}" if form else name
    _LIBRARY.define(f"{full}({arguments}) -> {returns}")
    return full


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


@functools.cache
def _site(block: str, kind: str) -> str:
    number = number_in(block)
    assert number is not None  # or it had not been given to the op
    return str(Site(kind, number))


def _told(where: tuple[Any, ...]) -> str:
    """Return the site that an op is told of: by its name, or by a layer's and a kind."""
    return where[0] if len(where) == 1 else _site(where[0].value, where[1])


def _running(site: str) -> Engine:
    return running_engine(f"the edit at {site}")


def _update(hidden: torch.Tensor, residual: torch.Tensor | None, *where: Any) -> None:
    site = _told(where)
    _running(site).update(site, hidden, residual)


def _update_norm(
    hidden: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    rounding: int,
    *where: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    normed, carried = torch.empty_like(hidden), torch.empty_like(hidden)
    norm, site = Norm(weight, epsilon, Rounding(rounding)), _told(where)
    _running(site).update_norm(site, hidden, residual, norm, normed, carried)
    return normed, carried


def _update_norm_in_place(
    hidden: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    rounding: int,
    *where: Any,
) -> None:
    norm, site = Norm(weight, epsilon, Rounding(rounding)), _told(where)
    _running(site).update_norm(site, hidden, residual, norm, hidden, residual)


def _fake(*_: object) -> None:
    """Trace an op that returns nothing, and writes what its schema says."""


def _fake_norm(hidden: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Trace the op: both results have the dtype of `hidden`, whatever the residual's is."""
    return torch.empty_like(hidden), torch.empty_like(hidden)


def _register(name: str, function: Any, fake: Any) -> Any:
    for key in ("CPU", "CUDA"):
        _LIBRARY.impl(name, function, key)
    _LIBRARY._register_fake(name, fake)
    packet, _, form = name.partition(".")
    return getattr(getattr(torch.ops.interv, packet), form or "default")


_BOTH = "Tensor(a!) hidden, Tensor(b!) residual"
_NORM = "Tensor? weight, float epsilon, int rounding"
_OPS: dict[str, dict[str, Any]] = {"update": {}, "functional": {}, "in_place": {}}
for _form, _where in _SITES.items():
    _called = _define("update", _form, f"Tensor(a!) hidden, Tensor? residual, {_where}", "()")
    _OPS["update"][_form] = _register(_called, _update, _fake)
    _arguments = f"Tensor hidden, Tensor residual, {_NORM}, {_where}"
    _called = _define("update_norm", _form, _arguments, "(Tensor, Tensor)")
    _OPS["functional"][_form] = _register(_called, _update_norm, _fake_norm)
    _called = _define("update_norm_", _form, f"{_BOTH}, {_NORM}, {_where}", "()")
    _OPS["in_place"][_form] = _register(_called, _update_norm_in_place, _fake)


def _forms(name: str) -> UpdateOps:
    return UpdateOps(_OPS[name][""], _OPS[name].get("block"))


UPDATE = _forms("update")
UPDATE_NORM = NormOps(_forms("functional"), _forms("in_place"))


@contextmanager
def running(engine: Engine) -> Iterator[None]:
    """Let the op mean this engine's buffers inside the block."""
    token = _RUNNING.set(engine)
    try:
        yield
    finally:
        _RUNNING.reset(token)
