"""The Triton form: under the interpreter against the reference, and compiled for real GPUs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

# Threads x registers may not exceed 65,536: at 16 warps that is 128 for each thread.
REGISTERS = 128
_WIDE = pytest.mark.slow


@pytest.mark.parametrize("name", ["test_update.py", "test_bundle.py"])
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


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize(
    ("hidden_size", "columns"),
    [
        (576, 4),
        (4096, 4),
        (8192, 16),
        pytest.param(576, 1, marks=_WIDE),
        pytest.param(576, 16, marks=_WIDE),
        pytest.param(4096, 1, marks=_WIDE),
        pytest.param(4096, 16, marks=_WIDE),
        pytest.param(8192, 1, marks=_WIDE),
        pytest.param(8192, 4, marks=_WIDE),
    ],
)
def test_the_kernel_compiles_without_spills(
    capability: int, hidden_size: int, columns: int
) -> None:
    registers, spilled = _assembled(capability, hidden_size, columns)
    assert spilled == 0
    assert registers <= REGISTERS


def _assembled(capability: int, hidden_size: int, columns: int) -> tuple[int, int]:
    """Compile the kernel for bf16; return registers a thread and bytes spilled, as ptxas says."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.compiler import get_ptxas
    from triton.compiler import ASTSource

    from interv.codegen.kernels.triton_update import _update, warps

    block = triton.next_power_of_2(hidden_size)
    constants = {
        "PAIR": True,
        "K": columns,
        "BLOCK_K": triton.next_power_of_2(max(2, columns)),
        "BLOCK_H": block,
    }
    types = (
        *("*bf16", "*bf16", "*i32", "*i64", "*fp32", "*fp32", "*i32", "*i32", "*fp32"),
        *("*i64", "*i64", "*i32", "*i64", "i32", "i32", "i32", "i32", "i32"),
        *["constexpr"] * len(constants),
    )
    signature = dict(zip(_update.arg_names, types, strict=True))
    options = {"num_warps": warps(block), "enable_fp_fusion": True}
    source = ASTSource(_update, signature=signature, constexprs=constants)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    ptx = made.asm["ptx"]
    target = re.search(r"\.target (sm_\w+)", ptx)
    assert target is not None
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        # The flags of Triton's own call, which says nothing of what it used.
        command = [get_ptxas(capability).path, "-v", "--regAllocOptLevel=2", "-lineinfo"]
        command += [f"--gpu-name={target[1]}", file.name, "-o", os.devnull]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    used, stored = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes spill", said)
    assert used is not None
    assert stored is not None
    return int(used[1]), int(stored[1])
