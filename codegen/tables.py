"""The tensors that an update reads: directions by bank row, slots by request, counts to write.

Dims: `N` sites, `V` bank rows of a site, `H` hidden size, `S` slots, `K` columns, `P` programs,
`R` seats of requests that asked for a report, `T` tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from interv.codegen.bundle import SiteTable
from interv.codegen.slot import WORDS, Columns, SlotRows
from interv.passes.placing.plan import MAX_COLUMNS

# Where the fields of `interv.codegen.slot.COLUMN` lie, counted in their own type.
INT32 = {"a": 0, "b": 1, "program": 7, "kind": 8, "gate": 9, "store": 10, "block": 11, "mode": 18}
FLOAT32 = {"alpha": 2, "beta": 3, "strength": 4, "low": 5, "high": 6}
INT64 = {"bit": 6, "unless": 7, "sees": 8}


@dataclass(frozen=True, slots=True, eq=False)
class SiteTensors:
    """One site's bank and its part of every slot, on the device of the model.

    `gram = bank @ bank.T`, so that what a column would read after another follows from scalars.
    """

    bank: torch.Tensor  # [V, H] float32
    gram: torch.Tensor  # [V, V] float32
    columns: torch.Tensor  # [S, K, WORDS] int64, rows of COLUMN
    count: torch.Tensor  # [S] int32

    @property
    def width(self) -> int:
        """Return K."""
        return self.columns.shape[1]

    def field(self, name: str) -> torch.Tensor:
        """Return one field of every column, `[S, K]`, sharing the memory."""
        if name in INT32:
            return self.columns.view(torch.int32)[..., INT32[name]]
        if name in FLOAT32:
            return self.columns.view(torch.float32)[..., FLOAT32[name]]
        return self.columns[..., INT64[name]]

    def write(self, slot: int, columns: Columns) -> None:
        """Fill one slot of this site alone with `columns` `[C]`."""
        assert len(columns) <= self.width
        self.count[slot] = len(columns)
        self.columns[slot, : len(columns)] = as_words(columns).to(self.columns.device)


@dataclass(frozen=True, slots=True, eq=False)
class SlotTables:
    """The slots of all sites in one piece, so that writing a slot is two copies."""

    columns: torch.Tensor  # [S, N, K, WORDS] int64
    count: torch.Tensor  # [S, N] int32

    def write(self, slot: int, rows: SlotRows) -> None:
        """Fill one slot."""
        self.columns[slot].copy_(as_words(rows.columns))
        self.count[slot].copy_(torch.from_numpy(rows.count))


@dataclass(frozen=True, slots=True, eq=False)
class StepTensors:
    """What the tokens of a step are edited by; rows beyond the step's tokens have slot -1."""

    slot: torch.Tensor  # [T] int32, -1: no edit
    mask: torch.Tensor  # [T] int64, a bit for each selector that holds
    seat: torch.Tensor  # [T] int32, -1: the token's request asked for no report
    gate: torch.Tensor  # [T, G] float32, weights that gates of earlier sites gave, in their order
    index: torch.Tensor  # [T] int32, how many generated tokens come before; read where one decays


@dataclass(frozen=True, slots=True, eq=False)
class SiteCounts:
    """Where one site's edited rows are counted."""

    total: torch.Tensor  # [P] int64
    seats: torch.Tensor  # [R, P] int64


def slot_tables(sites: int, slots: int, width: int, device: torch.device | str) -> SlotTables:
    """Return tables of `slots` empty slots with K = `width`."""
    assert width <= MAX_COLUMNS
    return SlotTables(
        torch.zeros(slots, sites, max(1, width), WORDS, dtype=torch.int64, device=device),
        torch.zeros(slots, sites, dtype=torch.int32, device=device),
    )


def site_tensors(
    table: SiteTable, slots: SlotTables, index: int, device: torch.device | str
) -> SiteTensors:
    """Return the tensors of the site that is the `index`th of the slots' sites."""
    bank = torch.from_numpy(np.array(table.bank, dtype=np.float32))
    exact = bank.double()
    gram = (exact @ exact.T).float().contiguous().to(device)
    return SiteTensors(bank.to(device), gram, slots.columns[:, index], slots.count[:, index])


def as_words(columns: Columns) -> torch.Tensor:
    """Return columns as int64 words `[…, WORDS]`, on the host."""
    words = np.ascontiguousarray(columns).view("<i8").reshape(*columns.shape, WORDS)
    return torch.from_numpy(words)
