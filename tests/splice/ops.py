"""Opaque ops of the toy models, as vLLM's graphs have them: attention, and fused add-norms."""

from __future__ import annotations

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("interv_toy", "DEF")
_LIBRARY.define("attention_with_output(Tensor q, Tensor(a!) output) -> ()")
_LIBRARY.define("fused_add_rms_norm(Tensor x, Tensor residual) -> (Tensor, Tensor)")
_LIBRARY.define(
    "fused_add_rms_norm.maybe_inplace(Tensor(a!) x, Tensor(b!) residual) -> (Tensor, Tensor)"
)
_LIBRARY.define("fused_add_rms_norm_void(Tensor(a!) x, Tensor(b!) residual) -> ()")


def norm(x: Tensor) -> Tensor:
    """Normalise rows [T, H] by their root mean square."""
    return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-6)


def _attention(q: Tensor, output: Tensor) -> None:
    """Write the mean of the rows so far."""
    count = torch.arange(1, len(q) + 1, dtype=q.dtype)[:, None]
    output.copy_(q.cumsum(0) / count)


def _fused(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    total = x + residual
    return norm(total), total


def _donating(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Take both arguments' memory: whoever reads them afterwards reads NaN."""
    out = _fused(x, residual)
    x.fill_(torch.nan)
    residual.fill_(torch.nan)
    return out


def _void(x: Tensor, residual: Tensor) -> None:
    normed, total = _fused(x, residual)
    x.copy_(normed)
    residual.copy_(total)


def _fake_pair(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


def _fake_nothing(*_: Tensor) -> None:
    """Trace an op that only writes its arguments."""


_IMPLEMENTED = {
    "attention_with_output": (_attention, _fake_nothing),
    "fused_add_rms_norm": (_fused, _fake_pair),
    "fused_add_rms_norm.maybe_inplace": (_donating, _fake_pair),
    "fused_add_rms_norm_void": (_void, _fake_nothing),
}
for _name, (_real, _fake) in _IMPLEMENTED.items():
    _LIBRARY.impl(_name, _real, "CPU")
    _LIBRARY._register_fake(_name, _fake)

attention = torch.ops.interv_toy.attention_with_output
functional = torch.ops.interv_toy.fused_add_rms_norm.default
donating = torch.ops.interv_toy.fused_add_rms_norm.maybe_inplace


def void(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Normalise in place and hand the same tensors on."""
    torch.ops.interv_toy.fused_add_rms_norm_void(x, residual)
    return x, residual


def plain(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Add and normalise in a wider dtype, as the norms that are traced through do."""
    wide = x.to(torch.float64) + residual.to(torch.float64)
    return norm(wide).to(x.dtype), wide.to(x.dtype)
