"""The CPU form of the update: a C loop over the edited tokens, called through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import torch

from interv.codegen.kernels.native import library
from interv.codegen.slot import WORDS
from interv.codegen.tables import SiteCounts, SiteTensors, StepTensors
from interv.passes.placing.plan import MAX_COLUMNS

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
        *((name, ctypes.c_void_p) for name in ("bank", "gram", "columns", "count")),
        *((name, ctypes.c_int64) for name in ("rows", "slot_stride", "count_stride")),
        ("hidden_size", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("total", "seats")),
        ("seat_stride", ctypes.c_int64),
    )


class _Step(ctypes.Structure):
    """`step_t` of update.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("slot", "mask", "seat", "gate")),
        ("gate_stride", ctypes.c_int64),
        ("index", ctypes.c_void_p),
    )


@dataclass(frozen=True, slots=True, eq=False)
class CpuUpdate:
    """One site's update on the CPU, ready to be called every step.

    Keeps the tensors whose memory the C side reads; they may be written between steps but not
    replaced.
    """

    calls: dict[torch.dtype, Callable[..., None]]  # by the dtype of the residual
    tensors: SiteTensors
    step: StepTensors
    counts: SiteCounts
    scratch: torch.Tensor  # [2, H]
    dtype: torch.dtype
    fixed: tuple[object, ...]  # the addresses that no step changes, as ctypes takes them
    behind: tuple[object, ...]  # what lies at those addresses

    def __call__(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        """Apply every token's edits to `hidden` [T, H] in place; the stream is `hidden + residual`.

        Raises AssertionError for a dtype or layout that the compiled graph must not produce.
        """
        assert hidden.dtype == self.dtype
        assert hidden.stride(-1) == 1
        tokens = hidden.shape[-2]
        assert tokens <= self.step.slot.shape[0]
        pointer, stride, carried = 0, 0, self.dtype
        if residual is not None:
            assert residual.shape == hidden.shape
            assert residual.stride(-1) == 1
            pointer, stride, carried = residual.data_ptr(), residual.stride(-2), residual.dtype
        assert carried in self.calls, f"a residual of {carried} beside a stream of {self.dtype}"
        self.calls[carried](
            hidden.data_ptr(), pointer, tokens, hidden.stride(-2), stride, *self.fixed
        )


def cpu_update(
    tensors: SiteTensors, step: StepTensors, counts: SiteCounts, dtype: torch.dtype
) -> CpuUpdate:
    """Return the CPU form for one site. Raises IntervError E510 where it cannot be built."""
    assert tensors.width <= MAX_COLUMNS
    calls = {r: _function(name) for (h, r), name in _NAMES.items() if h == dtype}
    site, here = _site(tensors, counts), _step(step)
    scratch = torch.empty(2, tensors.bank.shape[1], dtype=torch.float32)
    fixed = (ctypes.byref(here), ctypes.c_void_p(scratch.data_ptr()), ctypes.byref(site))
    return CpuUpdate(calls, tensors, step, counts, scratch, dtype, fixed, (site, here))


def _site(tensors: SiteTensors, counts: SiteCounts) -> _Site:
    assert tensors.bank.is_contiguous()
    assert tensors.gram.is_contiguous()
    assert tensors.columns.stride()[1:] == (WORDS, 1)
    assert tensors.columns.stride(0) % WORDS == 0
    assert counts.total.is_contiguous()
    assert counts.seats.stride(-1) == 1
    pointers = (tensors.bank, tensors.gram, tensors.columns, tensors.count)
    rows, hidden_size = tensors.bank.shape
    return _Site(
        *(one.data_ptr() for one in pointers),
        rows,
        tensors.columns.stride(0) // WORDS,
        tensors.count.stride(0),
        hidden_size,
        counts.total.data_ptr(),
        counts.seats.data_ptr(),
        counts.seats.stride(0),
    )


def _step(step: StepTensors) -> _Step:
    for one in (step.slot, step.mask, step.seat, step.index):
        assert one.is_contiguous()
        assert one.shape == step.slot.shape
    assert step.gate.shape[0] == step.slot.shape[0]
    assert step.gate.stride(-1) == 1
    pointers = (step.slot, step.mask, step.seat, step.gate)
    gate_stride = step.gate.stride(0)
    return _Step(*(one.data_ptr() for one in pointers), gate_stride, step.index.data_ptr())


def _function(name: str) -> Callable[..., None]:
    call = library()[name]
    integer, pointer = ctypes.c_int64, ctypes.c_void_p
    call.argtypes = (pointer, pointer, *([integer] * 3), *([pointer] * 3))
    call.restype = None
    return call
