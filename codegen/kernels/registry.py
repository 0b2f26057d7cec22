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
from interv.codegen.kernels.norm import Norm, update_norm
from interv.codegen.tables import SiteCounts, SiteTensors, StepTensors

# One site's update: hidden [T, H] written in place, residual [T, H] or None.
SiteUpdate: TypeAlias = Callable[[torch.Tensor, torch.Tensor | None], None]
# The same with the norm behind it: hidden, residual, norm, and the two results [T, H], which may be
# hidden and residual.
SiteUpdateNorm: TypeAlias = Callable[
    [torch.Tensor, torch.Tensor, Norm, torch.Tensor, torch.Tensor], None
]
# The last one is the stream's dtype.
Factory: TypeAlias = Callable[[SiteTensors, StepTensors, SiteCounts, torch.dtype], SiteUpdate]


def runnable(device: torch.device) -> tuple[str, ...]:
    """Return the names of the forms that run on a device, the best first."""
    if device.type != "cpu":
        return ("triton", "torch")
    return ("triton", "c", "torch") if _triton_interprets() else ("c", "torch")


def _torch(
    site: SiteTensors, step: StepTensors, counts: SiteCounts, dtype: torch.dtype
) -> SiteUpdate:
    def update(hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        reference.update(hidden, residual, step, site, counts)

    return update


def _c(site: SiteTensors, step: StepTensors, counts: SiteCounts, dtype: torch.dtype) -> SiteUpdate:
    from interv.codegen.kernels.cpu import cpu_update

    return cpu_update(site, step, counts, dtype)


def _triton(
    site: SiteTensors, step: StepTensors, counts: SiteCounts, dtype: torch.dtype
) -> SiteUpdate:
    from interv.codegen.kernels.triton_update import TritonUpdate

    return TritonUpdate(site, step, counts)


def _triton_interprets() -> bool:
    """Say whether Triton's interpreter stands in for a GPU, as in the tests of the CUDA path."""
    try:
        import triton
    except ImportError:
        return False
    return bool(triton.knobs.runtime.interpret)


FORMS: Mapping[str, Factory] = MappingProxyType({"triton": _triton, "c": _c, "torch": _torch})


def norm_form(
    name: str,
    update: SiteUpdate,
    site: SiteTensors,
    step: StepTensors,
    counts: SiteCounts,
) -> SiteUpdateNorm:
    """Return the form of that name for a site's update with the add-RMSNorm behind it."""
    if name == "triton":
        from interv.codegen.kernels.triton_norm import TritonUpdateNorm

        return TritonUpdateNorm(site, step, counts)

    def plain(
        hidden: torch.Tensor,
        residual: torch.Tensor,
        norm: Norm,
        normed: torch.Tensor,
        carried: torch.Tensor,
    ) -> None:
        results = update_norm(update, hidden, residual, norm)
        for into, result in zip((normed, carried), results, strict=True):
            into.copy_(result)

    return plain
