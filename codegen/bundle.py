"""What a compiled document is: tables of scalars and directions, ready for the runtime.

A bundle holds no torch object and no closure, so it travels to worker processes by pickle and
prints the same on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from interv.sites import Site
from interv.spec import Selector


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a site's update, for a token whose stream is `h`.

    p = bank[a]·h + Σ (bank[a]·bank[b_i]) c_i over the earlier columns i that `sees` names;
    c = alpha + beta·p + strength·(clamp(p, low, high) - p), or 0 where `selector` is not set;
    h gains c·bank[b].
    """

    a: int  # bank row that is read; -1 where the op reads nothing (p = 0)
    b: int  # bank row that is written
    alpha: float = 0.0
    beta: float = 0.0
    strength: float = 0.0
    low: float = -np.inf
    high: float = np.inf
    selector: int = 0  # index into Bundle.selectors
    sees: int = 0  # bit i: this column reads what column i wrote
    origin: tuple[str, ...] = ()  # source lines, for the explain


@dataclass(frozen=True, slots=True, eq=False)
class SiteTable:
    """Everything that any program does at one site."""

    site: Site
    bank: npt.NDArray[np.float32]  # [V, H], unique directions
    programs: Mapping[str, tuple[Column, ...]]  # programs without an edit here are absent

    @property
    def width(self) -> int:
        """Return K, the most columns a program has here."""
        return max(len(columns) for columns in self.programs.values())


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """The compiled form of one or more documents for one model.

    `structure` is the digest of what the spliced graph depends on, `contents` of what each
    program does, its vectors' bytes included.
    """

    hidden_size: int
    num_layers: int
    sites: tuple[SiteTable, ...]  # in the order a forward pass reaches them
    selectors: tuple[Selector, ...]
    programs: tuple[str, ...]
    default: str | None
    structure: str
    contents: Mapping[str, str]
    where: Mapping[Site, tuple[str, ...]]  # source lines that declare each site, for errors
