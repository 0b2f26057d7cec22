"""Opaque ops of the toy models, as vLLM's graphs have them: mixers, experts, fused add-norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("interv_toy", "DEF")
# Nothing in its name says that it mixes tokens; the name of its layer does.
_LIBRARY.define("mix(Tensor q, Tensor(a!) output, str layer_name) -> ()")
# An op that is given a layer's name too, but works on each row alone.
_LIBRARY.define("attention_free_experts(Tensor x, str layer_name) -> Tensor")
# Two results, as vLLM's `vllm_ir` ops have; the second overload may take its arguments' memory.
_TAKES = "Tensor? weight, float epsilon, SymInt? variance_size=None"
_LIBRARY.define(f"fused_add_rms_norm(Tensor x, Tensor x_residual, {_TAKES}) -> (Tensor, Tensor)")
_LIBRARY.define(
    "fused_add_rms_norm.maybe_inplace"
    f"(Tensor(a!) x, Tensor(b!) x_residual, {_TAKES}) -> (Tensor, Tensor)"
)
# Another norm with the same arguments.
_LIBRARY.define("gemma_fused_add_rms_norm(Tensor x, Tensor x_residual) -> (Tensor, Tensor)")
# None, as those of vLLM's `_C` do.
_KERNELS = torch.library.Library("interv_toy_kernels", "DEF")
_KERNELS.define(
    "fused_add_rms_norm(Tensor(a!) input, Tensor(b!) residual, Tensor? weight, float epsilon) -> ()"
)
EPSILON = 1e-6


def norm(x: Tensor) -> Tensor:
    """Normalise rows [T, H] by their root mean square."""
    return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-6)


def _mix(q: Tensor, output: Tensor, layer_name: str) -> None:
    """Write the mean of the rows so far."""
    count = torch.arange(1, len(q) + 1, dtype=q.dtype)[:, None]
    output.copy_(q.cumsum(0) / count)


def _experts(x: Tensor, layer_name: str) -> Tensor:
    return torch.tanh(x)


def _fake_like(x: Tensor, layer_name: str) -> Tensor:
    return torch.empty_like(x)


def _fused(
    x: Tensor,
    residual: Tensor,
    weight: Tensor | None = None,
    epsilon: float = EPSILON,
    variance_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    total = x + residual
    part = total[..., :variance_size]
    normed = total * torch.rsqrt(part.pow(2).mean(dim=-1, keepdim=True) + epsilon)
    return normed if weight is None else normed * weight, total


def _donating(x: Tensor, residual: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Take both arguments' memory: whoever reads them afterwards reads NaN."""
    out = _fused(x, residual, *rest)
    x.fill_(torch.nan)
    residual.fill_(torch.nan)
    return out


def _void(x: Tensor, residual: Tensor, weight: Tensor | None, epsilon: float) -> None:
    normed, total = _fused(x, residual, weight, epsilon)
    x.copy_(normed)
    residual.copy_(total)


def _fake_pair(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


def _fake_nothing(*_: Any) -> None:
    """Trace an op that only writes its arguments."""


_IMPLEMENTED = {
    "mix": (_LIBRARY, _mix, _fake_nothing),
    "attention_free_experts": (_LIBRARY, _experts, _fake_like),
    "fused_add_rms_norm": (_LIBRARY, _fused, _fake_pair),
    "fused_add_rms_norm.maybe_inplace": (_LIBRARY, _donating, _fake_pair),
    "gemma_fused_add_rms_norm": (_LIBRARY, _fused, _fake_pair),
}
for _name, (_library, _real, _fake) in _IMPLEMENTED.items():
    _library.impl(_name, _real, "CPU")
    _library._register_fake(_name, _fake)
_KERNELS.impl("fused_add_rms_norm", _void, "CPU")
_KERNELS._register_fake("fused_add_rms_norm", _fake_nothing)

mix = torch.ops.interv_toy.mix
experts = torch.ops.interv_toy.attention_free_experts
FUNCTIONAL = torch.ops.interv_toy.fused_add_rms_norm.default
DONATING = torch.ops.interv_toy.fused_add_rms_norm.maybe_inplace
GEMMA = torch.ops.interv_toy.gemma_fused_add_rms_norm.default
VOID = torch.ops.interv_toy_kernels.fused_add_rms_norm.default


def _weight(x: Tensor) -> Tensor:
    return torch.full((x.shape[-1],), 1.25)


def functional(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Add and normalise into two new tensors."""
    normed, total = FUNCTIONAL(x, residual, _weight(x), EPSILON)
    return normed, total


def donating(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Add and normalise into two tensors that may be the arguments."""
    normed, total = DONATING(x, residual, _weight(x), EPSILON, None)
    return normed, total


def gemma(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Add and normalise by an op of another name."""
    normed, total = GEMMA(x, residual)
    return normed, total


def partial(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Add and normalise by the variance of a part of each row."""
    normed, total = FUNCTIONAL(x, residual, _weight(x), EPSILON, 4)
    return normed, total


def void(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Normalise in place and hand the same tensors on."""
    VOID(x, residual, _weight(x), EPSILON)
    return x, residual


def plain(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Add and normalise in a wider dtype, as the norms that are traced through do."""
    wide = x.to(torch.float64) + residual.to(torch.float64)
    return norm(wide).to(x.dtype), wide.to(x.dtype)
