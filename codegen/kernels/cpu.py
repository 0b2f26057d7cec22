"""The CPU form of the update: a C loop over the edited tokens, called through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import torch

from interv.codegen.kernels.native import library
from interv.codegen.tables import COEFFICIENTS, SiteTensors
from interv.passes.plan import MAX_COLUMNS

# The dtypes of the hidden part and of the carried residual.
_NAMES = {
    (torch.float32, torch.float32): "interv_update_f32_f32",
    (torch.bfloat16, torch.bfloat16): "interv_update_bf16_bf16",
    (torch.bfloat16, torch.float32): "interv_update_bf16_f32",
    (torch.float16, torch.float16): "interv_update_f16_f16",
    (torch.float16, torch.float32): "interv_update_f16_f32",
}


class _Site(ctypes.Structure):
    """`site_t` of update.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("bank", "gram", "a", "b", "coef", "bit")),
        ("sees", ctypes.c_void_p),
        ("count", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("hidden_size", ctypes.c_int64),
        ("edited", ctypes.c_void_p),
    )


@dataclass(frozen=True, slots=True, eq=False)
class CpuUpdate:
    """One site's update on the CPU, ready to be called every step.

    Keeps the tensors whose memory the C side reads; they may be written between steps but not
    replaced.
    """

    calls: dict[torch.dtype, Callable[..., None]]  # by the dtype of the residual
    site: _Site
    tensors: SiteTensors
    scratch: torch.Tensor  # [2, H]
    slot: torch.Tensor  # [T max] int32
    mask: torch.Tensor  # [T max] int64
    edited: torch.Tensor  # [S] int64
    dtype: torch.dtype
    fixed: tuple[object, ...]  # the addresses that no step changes, as ctypes takes them

    def __call__(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        """Add every token's edits to `hidden` [T, H] in place; the stream is `hidden + residual`.

        Raises AssertionError for a dtype or layout that the compiled graph must not produce.
        """
        assert hidden.dtype == self.dtype
        assert hidden.stride(-1) == 1
        tokens = hidden.shape[-2]
        assert tokens <= self.slot.shape[0]
        pointer, stride = 0, 0
        if residual is not None:
            assert residual.shape == hidden.shape
            assert residual.stride(-1) == 1
            pointer, stride = residual.data_ptr(), residual.stride(-2)
        self.calls[self.dtype if residual is None else residual.dtype](
            hidden.data_ptr(),
            pointer,
            tokens,
            hidden.stride(-2),
            stride,
            *self.fixed,
        )


def cpu_update(
    tensors: SiteTensors,
    slot: torch.Tensor,
    mask: torch.Tensor,
    edited: torch.Tensor,
    dtype: torch.dtype,
) -> CpuUpdate:
    """Return the CPU form for one site; `edited` [S] int64 counts the rows written, by slot.

    Raises IntervError E510 where the C form cannot be built.
    """
    assert tensors.width <= MAX_COLUMNS
    assert tensors.coef.shape[-1] == len(COEFFICIENTS)
    calls = {r: _function(name) for (h, r), name in _NAMES.items() if h == dtype}
    rows, hidden_size = tensors.bank.shape
    names = ("bank", "gram", "a", "b", "coef", "bit", "sees", "count")
    for name in names:
        assert getattr(tensors, name).is_contiguous()
    pointers = [getattr(tensors, name).data_ptr() for name in names]
    site = _Site(*pointers, rows, tensors.width, hidden_size, edited.data_ptr())
    scratch = torch.empty(2, hidden_size, dtype=torch.float32)
    addresses = [ctypes.c_void_p(x.data_ptr()) for x in (slot, mask, scratch)]
    fixed = (*addresses, ctypes.byref(site))
    return CpuUpdate(calls, site, tensors, scratch, slot, mask, edited, dtype, fixed)


def _function(name: str) -> Callable[..., None]:
    call = library()[name]
    integer, pointer = ctypes.c_int64, ctypes.c_void_p
    call.argtypes = (pointer, pointer, *([integer] * 3), *([pointer] * 4))
    call.restype = None
    return call
