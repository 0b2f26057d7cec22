"""A simple model of what the updates of a step cost, stated so that it can be checked.

A launch a site. What a token costs stands beside the op (`interv.passes.ops.OPS`): `3·H` elements
of the stream's dtype and `4·K·H` flops; the fp32 bank is read once. Time is launches plus bytes
over bandwidth, the larger part of an update being memory traffic while K is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interv.passes.ops import OPS, update


@dataclass(frozen=True, slots=True)
class Machine:
    """What a prediction assumes: not a measurement of any machine at hand."""

    name: str = "a GPU of 2000 GB/s and 2 µs a launch"
    bytes_per_us: float = 2_000_000.0
    launch_us: float = 2.0
    stream_bytes: int = 2  # bf16
    tokens: int = 16  # T, a decode step of 16 requests


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one step, every token of which every program's widest column set edits."""

    launches: int
    columns: int  # summed over sites
    stream_bytes: int  # read and written, for `machine.tokens` tokens
    bank_bytes: int
    flops: int
    predicted_us: float
    machine: Machine


def cost_of(sizes: Sequence[tuple[int, int]], hidden_size: int, machine: Machine) -> Cost:
    """Return the cost of sites given as (V bank rows, K columns) at a width of H."""
    rows, columns = (sum(part) for part in zip(*sizes, strict=True)) if sizes else (0, 0)
    op = OPS[update.__name__]
    elements = sum(op.elements(hidden_size, width) for _, width in sizes)
    stream = elements * machine.tokens * machine.stream_bytes
    bank = 4 * rows * hidden_size
    return Cost(
        launches=len(sizes),
        columns=columns,
        stream_bytes=stream,
        bank_bytes=bank,
        flops=sum(op.flops(hidden_size, width) for _, width in sizes) * machine.tokens,
        predicted_us=len(sizes) * machine.launch_us + (stream + bank) / machine.bytes_per_us,
        machine=machine,
    )
