"""The Triton form of an update with its norm, compiled for real GPUs."""

from __future__ import annotations

import pytest

from interv.passes.captured.norm_rounding import Rounding
from tests.kernels.assemble import REGISTERS, TARGETS, assembled

_WIDE = pytest.mark.slow


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize(
    ("hidden_size", "columns", "dtype", "weight", "rounding"),
    [
        (576, 4, "bf16", "bf16", Rounding.COMPILED),
        (4096, 16, "bf16", "bf16", Rounding.COMPILED),
        (8192, 16, "bf16", "bf16", Rounding.KERNEL),
        (16384, 4, "bf16", "bf16", Rounding.COMPILED),
        pytest.param(4096, 4, "fp32", None, Rounding.TORCH, marks=_WIDE),
        pytest.param(4096, 64, "bf16", "fp32", Rounding.COMPILED, marks=_WIDE),
        pytest.param(8192, 4, "fp32", "fp32", Rounding.COMPILED, marks=_WIDE),
        pytest.param(8192, 64, "fp16", "fp16", Rounding.TORCH, marks=_WIDE),
        pytest.param(16384, 16, "fp32", "fp32", Rounding.KERNEL, marks=_WIDE),
    ],
)
def test_the_kernel_compiles_without_spills(
    capability: int,
    hidden_size: int,
    columns: int,
    dtype: str,
    weight: str | None,
    rounding: Rounding,
) -> None:
    import triton

    from interv.codegen.kernels.triton_norm import _update_norm
    from interv.codegen.kernels.triton_update import warps

    block = triton.next_power_of_2(hidden_size)
    constants = {
        "WEIGHT": weight is not None,
        "ROUNDING": int(rounding),
        "BLOCK_K": triton.next_power_of_2(max(2, columns)),
        "BLOCK_H": block,
    }
    types = (*[f"*{dtype}"] * 4, f"*{weight or dtype}", *["i32"] * 4, "fp32")
    registers, spilled = assembled(_update_norm, types, constants, capability, warps(block))
    assert registers <= REGISTERS
    # A wider row than this does not fit into the registers of 16 warps twice.
    assert spilled == 0 or hidden_size > 8192
