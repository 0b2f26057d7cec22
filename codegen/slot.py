"""What one slot holds: the columns that a request's programs have at every site.

A slot is scalars, rows of the banks and bits only. It is composed from the programs' columns by
arithmetic on a few small arrays, so that a new multiplier costs microseconds and no compilation.

Dims: `N` sites of the bundle, `K` columns, `C` columns of a program over all sites.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from interv.codegen.bundle import Column, SiteTable, stores
from interv.document.sites import Site
from interv.document.spec import Conflict
from interv.passes.graph.column import Kind, Mode
from interv.passes.placing.plan import GATES

# One column as the kernels read it, eight-byte aligned; `interv/codegen/kernels/update.c` has it
# as `column_t`.
COLUMN = np.dtype(
    [
        ("a", "<i4"),
        ("b", "<i4"),
        ("alpha", "<f4"),
        ("beta", "<f4"),
        ("strength", "<f4"),
        ("low", "<f4"),
        ("high", "<f4"),
        ("program", "<i4"),
        ("kind", "<i4"),
        ("gate", "<i4"),
        ("store", "<i4"),
        ("block", "<i4"),
        ("bit", "<i8"),
        ("unless", "<i8"),
        ("sees", "<i8"),
        ("mode", "<i4"),
        ("spare", "<i4"),
    ]
)
WORDS = COLUMN.itemsize // 8
Columns: TypeAlias = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True, eq=False)
class SlotRows:
    """The content of one slot; beyond `count` columns of a site nothing is read."""

    count: npt.NDArray[np.int32]  # [N]
    columns: Columns  # [N, K] COLUMN


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The columns of one program, in the order of sites."""

    count: npt.NDArray[np.int32]  # [N]
    site: npt.NDArray[np.intp]  # [C]
    index: npt.NDArray[np.intp]  # [C], the column's place at its site
    columns: Columns  # [C] COLUMN
    bits: npt.NDArray[np.int64]  # [N], the selector bits of every edit at the site
    gates: npt.NDArray[np.int64]  # [N], bit i: its column i there is a gate
    stores: int  # how many weights of gates it keeps for later sites


def records(columns: Iterable[Column], program: int = 0) -> Columns:
    """Return columns as the kernels read them, `[C]`; `program` is the row that they count in."""
    rows = [
        (
            *(one.a, one.b, one.alpha, one.beta, one.strength, one.low, one.high, program),
            *(_known_kind(one), one.gate, one.store, one.block),
            *(signed(1 << one.selector), 0, signed(one.sees)),
            *(one.mode, 0),
        )
        for one in columns
    ]
    return np.array(rows, dtype=COLUMN)


def _known_kind(column: Column) -> int:
    """Return the kind that the kernels take a column for.

    A LINEAR column is applied before they run. They take it for the add of a direction of zeros
    that it is, by which its rows are counted together with the other columns of its program.
    """
    return Kind.ADD if column.kind == Kind.LINEAR else column.kind


def linear(columns: Columns) -> npt.NDArray[np.bool_]:
    """Say which columns are full linear maps, those that are no gates and yet name a place."""
    found: npt.NDArray[np.bool_] = (columns["kind"] == Kind.ADD) & (columns["store"] >= 0)
    return found


def signed(bits: int) -> int:
    """Return a set of up to 64 bits as the signed integer that tensors store."""
    return bits - (1 << 64) if bits >> 63 else bits


def part(
    sites: Sequence[Site], columns: Mapping[Site, tuple[Column, ...]], program: int = 0
) -> Part:
    """Return a program's columns; `sites` are the bundle's, in its order."""
    listed = [columns.get(site, ()) for site in sites]
    count = np.array([len(one) for one in listed], dtype=np.int32)
    made = records([column for one in listed for column in one], program)
    bits = np.zeros(len(sites), dtype=np.int64)
    where = np.repeat(np.arange(len(sites)), count)
    gates = np.zeros(len(sites), dtype=np.int64)
    index = np.concatenate([np.arange(n) for n in count]) if len(count) else where
    opens = made["kind"] == Kind.GATE
    np.bitwise_or.at(bits, where[~opens], made["bit"][~opens])
    own = np.left_shift(np.uint64(1), index.astype(np.uint64)).view("<i8")
    np.bitwise_or.at(gates, where[opens], own[opens])
    kept = stores(column for one in listed for column in one)
    return Part(count, where, index.astype(np.intp), made, bits, gates, kept)


def parts(sites: Sequence[SiteTable], programs: Sequence[str]) -> dict[str, Part]:
    """Return every program of a bundle as the part of a slot that it can be."""
    places = [table.site for table in sites]
    return {
        name: part(places, {t.site: t.programs.get(name, ()) for t in sites}, index)
        for index, name in enumerate(programs)
    }


def compose(terms: Sequence[tuple[Part, float]], width: int, conflict: Conflict) -> SlotRows:
    """Return the slot of programs with their multipliers, in the order of the request.

    A multiplier m scales what a program does: scales times m, strengths times m but at most 1
    (those of OVER without an end).
    Under `sequential` a program reads what the earlier ones wrote, under `sum` and `error` each
    reads the original, under `priority` a program loses the tokens that an earlier one edits at
    the site. `width` is K, at least the number of columns that meet at any site.
    """
    sites = len(terms[0][0].count) if terms else 0
    count = np.zeros(sites, dtype=np.int32)
    taken = np.zeros(sites, dtype=np.int64)
    gates = np.zeros(sites, dtype=np.int64)
    kept = 0
    out = np.zeros((sites, width), dtype=COLUMN)
    for one, multiplier in terms:
        made = multiplied(one.columns, multiplier)
        before = count[one.site].astype(np.int64)
        _shift(made, before, kept, gates[one.site], conflict == "sequential")
        if conflict == "priority":
            # A gate takes no token and loses none: it may be that of an edit at a later site.
            made["unless"] = np.where(made["kind"] == Kind.GATE, 0, taken[one.site])
        out[one.site, count[one.site] + one.index] = made
        gates |= np.left_shift(one.gates.view("<u8"), count.astype(np.uint64)).view("<i8")
        count += one.count
        taken |= one.bits
        kept += one.stores
    return SlotRows(count, out)


def multiplied(columns: Columns, multiplier: float) -> Columns:
    """Return a copy of columns that does `multiplier` times as much; gates stay as they are."""
    made = columns.copy()
    kind = made["kind"]
    scaled = ~np.isin(kind, (Kind.GATE, Kind.REPLACE, Kind.ROTATE))
    made["alpha"][scaled] *= np.float32(multiplier)
    made["beta"] *= np.float32(multiplier)
    strength = made["strength"].astype(np.float64) * multiplier
    end = np.where(made["mode"] & Mode.OVER, np.inf, 1.0)
    made["strength"] = np.minimum(strength, end)
    return made


def _shift(
    columns: Columns,
    before: npt.NDArray[np.int64],
    kept: int,
    gates: npt.NDArray[np.int64],
    sequential: bool,
) -> None:
    """Move what columns name behind what other programs have, in place.

    Those have `before` columns at the site of each, of which `gates` are gates, and keep `kept`
    weights of gates for later sites.
    """
    moved = columns["sees"].view("<u8") << before.astype(np.uint64)
    if sequential:
        earlier = (np.uint64(1) << before.astype(np.uint64)) - np.uint64(1)
        reads = (columns["a"] >= 0) | np.isin(columns["kind"], (Kind.KEEP_NORM, Kind.REPLACE))
        reads |= (columns["mode"] & Mode.SHARE) != 0
        moved = np.where(reads, moved | (earlier & ~gates.view("<u8")), moved)
    columns["sees"] = moved.view("<i8")
    gate, own = columns["gate"], columns["gate"] < GATES
    columns["gate"] = np.where(gate < 0, gate, gate + np.where(own, before, kept))
    stored = (columns["kind"] == Kind.GATE) & (columns["store"] >= 0)
    columns["store"] = np.where(stored, columns["store"] + kept, columns["store"])
