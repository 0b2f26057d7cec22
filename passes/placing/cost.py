"""A simple model of what the updates of a step cost, stated so that it can be checked.

A launch a site. What a token costs stands beside the op (`graph/ops.py`): `3·H` elements
of the stream's dtype, two read and one written, and `4·K·H` flops; the fp32 bank is read once from
memory, and its rows again for every token from a cache. The time of a site is a launch plus the
slowest of what it moves and computes; a machine that leaves a rate out is taken to be infinitely
fast there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from interv.passes.graph.canonical import update
from interv.passes.graph.ops import OPS, linear

_BANK_BYTES = 4  # fp32
# A column reads its row for the dot, and again when it is added.
_ROW_READS = 2
# Of a full linear map on a GPU, counted: which tokens take it, the matmul, and what blends it in.
_MAP_LAUNCHES = 45


@dataclass(frozen=True, slots=True)
class Machine:
    """What a prediction assumes: not a measurement of any machine at hand.

    The default knows memory and launches only. A core is what runs the program of one token.
    """

    name: str = "a GPU of 2000 GB/s and 2 µs a launch"
    bytes_per_us: float = 2_000_000.0  # of memory
    launch_us: float = 2.0
    stream_bytes: int = 2  # bf16
    tokens: int = 16  # T, a decode step of 16 requests
    cores: int = 1
    near_bytes: int = 0  # of a core's own cache that bank rows may fill
    near_bytes_per_us: float = math.inf  # of a core, out of its own cache
    link_bytes_per_us: float = math.inf  # of a core, from what all cores share
    shared_bytes_per_us: float = math.inf  # of the shared cache, all cores together
    flops_per_us: float = math.inf


# Memory: the measured rate of a copy. Cores, clock (1.755 GHz) and fp32 rate: the vendor's
# figures for the SXM board, with 128 bytes a cycle out of a core's own cache and 64 from the
# shared one. Assumptions: the rate of the shared cache, half of a core's 256 KiB for rows, and
# a launch of 1 µs where a CUDA graph replays it.
H200 = Machine(
    name="an H200 of 4.3 TB/s, 1 µs a launch in a CUDA graph",
    bytes_per_us=4_300_000.0,
    launch_us=1.0,
    cores=132,
    near_bytes=128 * 1024,
    near_bytes_per_us=225_000.0,
    link_bytes_per_us=112_000.0,
    shared_bytes_per_us=5_500_000.0,
    flops_per_us=67_000_000.0,
)
# An assumption too: what a launch costs on its own, outside a CUDA graph.
EAGER_LAUNCH_US = 2.0


@dataclass(frozen=True, slots=True)
class UpdateCost:
    """The cost of one site's update in one step."""

    read_bytes: int  # of the stream
    written_bytes: int  # of the stream
    bank_bytes: int  # read once
    flops: int
    floor_us: float  # memory alone: no kernel of this traffic is faster
    kernel_us: float  # the slowest of memory, caches and arithmetic
    predicted_us: float  # with the launch

    @property
    def stream_bytes(self) -> int:
        """Return what is read and written of the stream."""
        return self.read_bytes + self.written_bytes


@dataclass(frozen=True, slots=True)
class MapCost:
    """The cost of one full linear map in one step, whatever part of its tokens takes it."""

    launches: int
    weight_bytes: int  # read once
    flops: int
    predicted_us: float


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
    maps: tuple[MapCost, ...] = ()  # full linear maps, in `flops` and `predicted_us` too


def cost_of(
    sizes: Sequence[tuple[int, int]], hidden_size: int, machine: Machine, maps: int = 0
) -> Cost:
    """Return the cost of sites given as (V bank rows, K columns) at a width of H.

    They have so many full linear `maps` together.
    """
    sites = [update_cost(machine.tokens, hidden_size, *size, machine) for size in sizes]
    full = map_cost(machine.tokens, hidden_size, machine)
    return Cost(
        launches=len(sites),
        columns=sum(columns for _, columns in sizes),
        stream_bytes=sum(one.stream_bytes for one in sites),
        bank_bytes=sum(one.bank_bytes for one in sites),
        flops=sum(one.flops for one in sites) + maps * full.flops,
        predicted_us=sum(one.predicted_us for one in sites) + maps * full.predicted_us,
        machine=machine,
        maps=tuple([full] * maps),
    )


def update_cost(
    tokens: int, hidden_size: int, rows: int, columns: int, machine: Machine
) -> UpdateCost:
    """Return the cost of one update of T tokens: V bank rows, K columns, a width of H."""
    op = OPS[update.__name__]
    element = tokens * machine.stream_bytes
    written = hidden_size * element
    read = op.elements(hidden_size, columns) * element - written
    bank = _BANK_BYTES * rows * hidden_size
    flops = op.flops(hidden_size, columns) * tokens
    floor = (read + written + bank) / machine.bytes_per_us
    again = _ROW_READS * _BANK_BYTES * columns * hidden_size * tokens
    kernel = max(
        floor,
        (read + written) / (_busy(tokens, machine) * machine.link_bytes_per_us),
        again / _row_rate(tokens, bank, machine),
        flops / machine.flops_per_us,
    )
    return UpdateCost(read, written, bank, flops, floor, kernel, kernel + machine.launch_us)


def map_cost(tokens: int, hidden_size: int, machine: Machine) -> MapCost:
    """Return the cost of one full map of T tokens: a matmul of its own with fp32 weights.

    What it reads and writes of the stream is small beside the weights, and not in it.
    """
    weight_bytes = _BANK_BYTES * hidden_size**2
    flops = OPS[linear.__name__].flops(hidden_size, 1) * tokens
    slowest = max(weight_bytes / machine.bytes_per_us, flops / machine.flops_per_us)
    return MapCost(_MAP_LAUNCHES, weight_bytes, flops, slowest + _MAP_LAUNCHES * machine.launch_us)


def _busy(tokens: int, machine: Machine) -> int:
    return min(tokens, machine.cores)


def _row_rate(tokens: int, bank: int, machine: Machine) -> float:
    """Return how fast rows come from a cache: a core's own where they fit, else the shared one."""
    busy = _busy(tokens, machine)
    if bank <= machine.near_bytes:
        return busy * machine.near_bytes_per_us
    return min(busy * machine.link_bytes_per_us, machine.shared_bytes_per_us)
