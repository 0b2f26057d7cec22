"""The tensors that an update reads: directions by bank row, and per slot a few scalars a column.

Dims: `V` bank rows, `H` hidden size, `S` slots, `K` columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from interv.codegen.bundle import Column, SiteTable
from interv.passes.plan import MAX_COLUMNS

# The scalars of a column, in the order of `SiteTensors.coef`.
COEFFICIENTS = ("alpha", "beta", "strength", "low", "high")


@dataclass(frozen=True, slots=True, eq=False)
class SiteTensors:
    """One site's bank and its slots' columns, on the device of the model.

    A column j of slot s reads `bank[a[s, j]]`, writes `bank[b[s, j]]` and is on for a token
    whose mask has `bit[s, j]` set. `gram = bank @ bank.T`, so that what column j would read
    after column i follows from scalars.
    """

    bank: torch.Tensor  # [V, H] float32
    gram: torch.Tensor  # [V, V] float32
    a: torch.Tensor  # [S, K] int32, -1 where nothing is read
    b: torch.Tensor  # [S, K] int32
    coef: torch.Tensor  # [S, K, 5] float32
    bit: torch.Tensor  # [S, K] int64
    sees: torch.Tensor  # [S, K] int64
    count: torch.Tensor  # [S] int32

    @property
    def width(self) -> int:
        """Return K."""
        return self.a.shape[1]


def site_tensors(
    table: SiteTable, slots: int, device: torch.device | str, width: int | None = None
) -> SiteTensors:
    """Return the tensors of a site with `slots` empty slots of `width` columns."""
    bank = torch.from_numpy(np.array(table.bank, dtype=np.float32))
    exact = bank.double()
    shape = (slots, max(1, width or table.width))
    return SiteTensors(
        bank=bank.to(device),
        gram=(exact @ exact.T).float().contiguous().to(device),
        a=torch.full(shape, -1, dtype=torch.int32, device=device),
        b=torch.zeros(shape, dtype=torch.int32, device=device),
        coef=torch.zeros((*shape, len(COEFFICIENTS)), dtype=torch.float32, device=device),
        bit=torch.zeros(shape, dtype=torch.int64, device=device),
        sees=torch.zeros(shape, dtype=torch.int64, device=device),
        count=torch.zeros(slots, dtype=torch.int32, device=device),
    )


def write_slot(tensors: SiteTensors, slot: int, columns: Sequence[Column]) -> None:
    """Fill one slot of a site with the columns of a program (none: the slot does nothing here)."""
    n = len(columns)
    assert n <= tensors.width <= MAX_COLUMNS
    tensors.count[slot] = n
    if n == 0:
        return

    def put(target: torch.Tensor, values: object) -> None:
        target[slot, :n] = torch.tensor(values, dtype=target.dtype).to(target.device)

    put(tensors.a, [c.a for c in columns])
    put(tensors.b, [c.b for c in columns])
    put(tensors.coef, [[getattr(c, name) for name in COEFFICIENTS] for c in columns])
    put(tensors.bit, [signed(1 << c.selector) for c in columns])
    put(tensors.sees, [signed(c.sees) for c in columns])


def signed(bits: int) -> int:
    """Return a set of up to 64 bits as the signed integer that torch stores."""
    return bits - (1 << 64) if bits >> 63 else bits
