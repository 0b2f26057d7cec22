"""The Triton form: under the interpreter against the reference, and compiled for real GPUs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.assemble import REGISTERS, TARGETS, assembled, instructions

_WIDE = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        *("test_update.py", "test_kinds.py", "test_update_norm.py", "test_bundle.py"),
        *("test_rows.py", "test_repetitions.py"),
    ],
)
def test_the_interpreted_kernel_is_the_reference(name: str) -> None:
    # Triton reads the variable when it is imported, so the interpreter has a process of its own.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-k",
        "triton",
        str(Path(__file__).parent / name),
    ]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed, \d+ deselected", done.stdout)


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize(
    ("hidden_size", "columns", "dtype", "residual"),
    [
        (576, 4, "bf16", "bf16"),
        (4096, 4, "bf16", "bf16"),
        (4096, 16, "fp32", None),
        (8192, 16, "bf16", "fp32"),
        (16384, 4, "bf16", "bf16"),
        pytest.param(576, 1, "fp32", None, marks=_WIDE),
        pytest.param(576, 16, "fp32", "fp32", marks=_WIDE),
        pytest.param(4096, 64, "bf16", "bf16", marks=_WIDE),
        pytest.param(4096, 1, "fp16", None, marks=_WIDE),
        pytest.param(8192, 1, "bf16", None, marks=_WIDE),
        pytest.param(8192, 4, "fp32", "fp32", marks=_WIDE),
        pytest.param(8192, 64, "bf16", "bf16", marks=_WIDE),
        pytest.param(16384, 16, "fp32", None, marks=_WIDE),
    ],
)
def test_the_kernel_compiles_without_spills(
    capability: int, hidden_size: int, columns: int, dtype: str, residual: str | None
) -> None:
    import triton

    from interv.codegen.kernels.triton_update import _update, warps

    block = triton.next_power_of_2(hidden_size)
    constants = {
        "PAIR": residual is not None,
        "BLOCK_K": triton.next_power_of_2(max(2, columns)),
        "BLOCK_H": block,
    }
    types = (f"*{dtype}", f"*{residual or dtype}", "i32", "i32")
    registers, spilled = assembled(_update, types, constants, capability, warps(block))
    assert registers <= REGISTERS
    # A wider row than this does not fit into the registers of 16 warps twice.
    assert spilled == 0 or hidden_size > 8192


@pytest.mark.parametrize("capability", TARGETS)
def test_counting_a_row_stops_nothing_else(capability: int) -> None:
    """No fence over the whole card, and what a core has cached of the bank stays there."""
    from interv.codegen.kernels.triton_update import _update, warps

    constants = {"PAIR": True, "BLOCK_K": 4, "BLOCK_H": 4096}
    types = ("*bf16", "*bf16", "i32", "i32")
    found = instructions(_update, types, constants, capability, warps(4096))
    assert {one.partition(".")[0] for one in found} >= {"LDG", "STG"}
    assert any(one.startswith("RED") for one in found)
    assert [one for one in found if one.startswith(("MEMBAR", "CCTL", "ERRBAR"))] == []


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize(
    ("hidden_size", "dtype", "residual"),
    [(576, "fp32", None), (4096, "bf16", "bf16"), (16384, "bf16", "fp32")],
)
def test_the_row_copy_compiles_without_spills(
    capability: int, hidden_size: int, dtype: str, residual: str | None
) -> None:
    import triton

    from interv.codegen.kernels.triton_rows import MOST_BLOCK, _copy

    block = min(MOST_BLOCK, triton.next_power_of_2(hidden_size))
    constants = {"PAIR": residual is not None, "BLOCK_H": block}
    types = (f"*{dtype}", f"*{residual or dtype}", "i32", "i32", "*i32", f"*{dtype}", "i32")
    registers, spilled = assembled(_copy, types, constants, capability, 4, ())
    assert registers <= REGISTERS
    assert spilled == 0


@pytest.mark.parametrize("capability", TARGETS)
def test_the_search_for_repetitions_compiles_without_spills(capability: int) -> None:
    from interv.kv.triton_repetitions import COLUMNS, PART, ROWS, _last_repetitions

    constants = {"BLOCK_S": ROWS, "BLOCK_C": COLUMNS, "BLOCK_D": PART}
    types = ("*fp32", "*i64", "*fp32", "fp32", "i32", "i32")
    # Four warps may have twice the registers that sixteen may have.
    registers, spilled = assembled(_last_repetitions, types, constants, capability, 4, (), 255)
    assert registers < 255
    assert spilled == 0
