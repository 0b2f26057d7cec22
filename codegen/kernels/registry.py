"""The forms of the update by name, and which of them a device runs.

Every form has one signature and one meaning: `reference.update`. The tests run all that a
machine can run against it; the engine takes the best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch

from interv.codegen.kernels import reference
from interv.codegen.tables import SiteTensors

# One site's update: hidden [T, H] written in place, residual [T, H] or None.
SiteUpdate: TypeAlias = Callable[[torch.Tensor, torch.Tensor | None], None]
# Takes the site, slot [T max] int32, mask [T max] int64, edited [S] int64, the stream's dtype.
Factory: TypeAlias = Callable[
    [SiteTensors, torch.Tensor, torch.Tensor, torch.Tensor, torch.dtype], SiteUpdate
]


def runnable(device: torch.device) -> tuple[str, ...]:
    """Return the names of the forms that run on a device, the best first."""
    if device.type != "cpu":
        return ("triton", "torch")
    return ("triton", "c", "torch") if _triton_interprets() else ("c", "torch")


def _torch(
    site: SiteTensors,
    slot: torch.Tensor,
    mask: torch.Tensor,
    edited: torch.Tensor,
    dtype: torch.dtype,
) -> SiteUpdate:
    def update(hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        tokens = hidden.shape[-2]
        reference.update(hidden, residual, slot[:tokens], mask[:tokens], site, edited)

    return update


def _c(
    site: SiteTensors,
    slot: torch.Tensor,
    mask: torch.Tensor,
    edited: torch.Tensor,
    dtype: torch.dtype,
) -> SiteUpdate:
    from interv.codegen.kernels.cpu import cpu_update

    return cpu_update(site, slot, mask, edited, dtype)


def _triton(
    site: SiteTensors,
    slot: torch.Tensor,
    mask: torch.Tensor,
    edited: torch.Tensor,
    dtype: torch.dtype,
) -> SiteUpdate:
    from interv.codegen.kernels.triton_update import TritonUpdate

    return TritonUpdate(site, slot, mask, edited)


def _triton_interprets() -> bool:
    """Say whether Triton's interpreter stands in for a GPU, as in the tests of the CUDA path."""
    try:
        import triton
    except ImportError:
        return False
    return bool(triton.knobs.runtime.interpret)


FORMS: Mapping[str, Factory] = MappingProxyType({"triton": _triton, "c": _c, "torch": _torch})
