"""Compile a Triton kernel for a GPU that this machine need not have, and say what it needs."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Threads x registers may not exceed 65,536: at 16 warps that is 128 for each thread.
REGISTERS = 128
TARGETS = (80, 90, 100)
# The types of `triton_update.buffers`.
BUFFERS = (
    *("*i32", "*i64", "*i32", "*fp32", "i32", "*fp32", "*fp32", "*i32", "*fp32", "*i64"),
    *("*i32", "*i64", "*i64", *["i32"] * 5),
)
# The place among them of the width of a row, which is even.
WIDTH = 14
# Strides of the stream that are multiples of 16, as the width of a model is.
ALIGNED = frozenset({"hidden_stride", "residual_stride", "normed_stride", "carried_stride"})


def _ptx(
    kernel: Any,
    types: tuple[str, ...],
    constants: Mapping[str, Any],
    capability: int,
    warps: int,
    buffers: tuple[str, ...] = BUFFERS,
    most: int = REGISTERS,
) -> str:
    """Compile a kernel whose arguments are `types`, then `buffers`, then the constants.

    It may use `most` registers a thread.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    named = (*types, *[buffers] * bool(buffers), *["constexpr"] * len(constants))
    signature = dict(zip(kernel.arg_names, named, strict=True))
    # What a launch finds out by itself for any model of a usual width.
    even = [
        (place,)
        for place, (name, kind) in enumerate(signature.items())
        if kind[0].startswith("*") * isinstance(kind, str) or name == "H" or name in ALIGNED
    ]
    even += [
        (len(types), place)
        for place, kind in enumerate(buffers)
        if kind.startswith("*") or place == WIDTH
    ]
    attributes = {place: [["tt.divisibility", 16]] for place in even}
    options = {"num_warps": warps, "maxnreg": most, "enable_fp_fusion": True}
    source = ASTSource(kernel, signature=signature, constexprs=dict(constants), attrs=attributes)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return str(made.asm["ptx"])


def _assemble(ptx: str, capability: int, out: str) -> str:
    """Assemble, and return what ptxas says of it."""
    from triton.backends.nvidia.compiler import get_ptxas

    target = re.search(r"\.target (sm_\w+)", ptx)
    assert target is not None
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        # The flags of Triton's own call, which says nothing of what it used.
        command = [get_ptxas(capability).path, "-v", "--regAllocOptLevel=2", "-lineinfo"]
        command += [f"--gpu-name={target[1]}", file.name, "-o", out]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def assembled(
    kernel: Any,
    types: tuple[str, ...],
    constants: Mapping[str, Any],
    capability: int,
    *rest: Any,
) -> tuple[int, int]:
    """Compile a kernel, and return registers a thread and bytes spilled, as ptxas says."""
    said = _assemble(_ptx(kernel, types, constants, capability, *rest), capability, os.devnull)
    used, stored = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes spill", said)
    assert used is not None
    assert stored is not None
    return int(used[1]), int(stored[1])


def instructions(
    kernel: Any,
    types: tuple[str, ...],
    constants: Mapping[str, Any],
    capability: int,
    *rest: Any,
) -> frozenset[str]:
    """Compile a kernel, and return what the card would run, as `MEMBAR.ALL.GPU`."""
    import triton

    reader = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        _assemble(_ptx(kernel, types, constants, capability, *rest), capability, file.name)
        command = [str(reader), "-c", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pattern = r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)"
    return frozenset(re.findall(pattern, text, re.MULTILINE))
