"""What is certain before a request runs: an edit that adds more than the engine's dtype can hold.

A column that adds a constant times its direction is known beforehand, whatever the stream is; one
behind a gate, in lengths of the stream, or of which a part only stays, is not.

Dims: `N` sites, `V` bank rows of a site, `C` columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from interv.codegen.bundle import Bundle
from interv.codegen.slot import Columns, multiplied
from interv.errors import IntervError
from interv.passes.graph.column import Kind, Mode
from interv.runtime import compat
from interv.runtime.choice import Choice
from interv.runtime.slot_contents import Composer


class Bounds:
    """The bounds of one engine."""

    def __init__(self, bundle: Bundle, dtype: Any) -> None:
        self._composer = Composer(bundle)
        self._name, self._largest = compat.largest(dtype)
        # The largest entry of each direction: N of [V].
        self._peaks = [
            np.abs(table.bank.astype(np.float64)).max(axis=1, initial=0) for table in bundle.sites
        ]

    def program(self, name: str, multiplier: float = 1.0) -> IntervError | None:
        """Return the error of a program, times a number, that adds too much."""
        part = self._composer.part(name)
        with np.errstate(over="ignore"):
            made = multiplied(part.columns, multiplier)
        said = f"'{name}'" if multiplier == 1 else f"'{name}*{multiplier:g}'"
        return self._error(said, self._most(part.site, made))

    def inline(self, choice: Choice) -> IntervError | None:
        """Return the error of an inline program that adds too much."""
        rows = self._composer.rows(choice, lambda _: 0)
        sites, places = np.nonzero(np.arange(rows.columns.shape[1]) < rows.count[:, None])
        return self._error("this program", self._most(sites, rows.columns[sites, places]))

    def _most(self, sites: npt.NDArray[np.intp], columns: Columns) -> float:
        """Return the most that a column is certain to add to one entry; `sites` is `[C]`."""
        kind = columns["kind"]
        certain = (columns["gate"] < 0) & (columns["b"] >= 0) & (columns["mode"] & Mode.SHARE == 0)
        certain &= (kind == Kind.ADD) & (columns["a"] < 0) | (kind == Kind.REPLACE)
        share = np.where(kind == Kind.REPLACE, columns["strength"], 1).astype(np.float64)
        added = np.abs(columns["alpha"].astype(np.float64) * share)
        found = [added[i] * self._peaks[sites[i]][columns["b"][i]] for i in np.flatnonzero(certain)]
        return max(map(float, found), default=0.0)

    def _error(self, said: str, most: float) -> IntervError | None:
        if most <= self._largest:
            return None
        return IntervError(
            "E105",
            f"{said} adds {most:.3g} to an entry of the residual stream, which is too large",
            notes=[f"the largest value of {self._name} is {self._largest:.3g}"],
            helps=["ask for a smaller multiplier, or write a smaller scale"],
        )
