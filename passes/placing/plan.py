"""What `place` decides: a table a site, with banks, selector bits and cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from interv.document.sites import Site
from interv.document.spec import Capture, Conflict, Selector
from interv.passes.graph.column import Form
from interv.passes.graph.directions import Map
from interv.passes.graph.ir import Origin
from interv.passes.placing.cost import Cost

Bank: TypeAlias = npt.NDArray[np.float32]

# A selector is a bit of an int64 a token; what a column sees is a bit of an int64 too.
MAX_SELECTORS = 64
MAX_COLUMNS = 64
# Gates of an update's own columns are numbered below this, gates of earlier sites from here on.
GATES = MAX_COLUMNS
# Which captures want a token is a bit of an int64 a token too.
MAX_CAPTURES = 64
# The most gates that weigh edits of later sites, for each token.
MOST_GATES = 64


@dataclass(frozen=True, slots=True)
class PlacedColumn:
    """A column whose `form` points into its site's bank and whose selector has a bit.

    `gate` is that of the form, or GATES and the place of a gate of an earlier site among those
    that its program stores; `store` is the place where this column, a gate, stores its weight.
    Of a LINEAR column `store` is the number of its map at the site, and `b` is a row of zeros:
    what adds it adds nothing, and counts the row.
    """

    form: Form
    selector: int  # index into Plan.selectors
    origins: tuple[Origin, ...]
    gate: int = -1
    store: int = -1


@dataclass(frozen=True, slots=True, eq=False)
class PlacedSite:
    """What all programs do at one site."""

    site: Site
    bank: Bank  # [V, H], unique directions
    labels: tuple[str, ...]  # what each row is called, for the explain
    programs: Mapping[str, tuple[PlacedColumn, ...]]
    maps: tuple[Map, ...] = ()  # full linear maps, unique

    @property
    def width(self) -> int:
        """Return K, the most columns a program has here."""
        return max(len(columns) for columns in self.programs.values())

    @property
    def where(self) -> tuple[str, ...]:
        """Return the source lines that declare the site, each once."""
        columns = (column for placed in self.programs.values() for column in placed)
        return tuple(dict.fromkeys(o.where for column in columns for o in column.origins))


@dataclass(frozen=True, slots=True)
class PlacedCapture:
    """A capture statement of a program: the sites whose rows it takes, and for which tokens."""

    program: str
    capture: Capture
    sites: tuple[Site, ...]  # in the order a forward pass reaches them
    selector: int  # index into Plan.selectors
    origin: Origin


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Everything that a bundle is made from, for one or more programs and one model."""

    hidden_size: int
    num_layers: int
    sites: tuple[PlacedSite, ...]  # in the order a forward pass reaches them
    selectors: tuple[Selector, ...]
    conflicts: Mapping[str, Conflict]  # of every program, those without a live edit included
    cost: Cost
    captures: tuple[PlacedCapture, ...] = ()

    @property
    def spliced(self) -> tuple[Site, ...]:
        """Return every site that something happens at, in the order a forward pass reaches them."""
        taken = (site for one in self.captures for site in one.sites)
        found = dict.fromkeys((*(placed.site for placed in self.sites), *taken))
        return tuple(sorted(found, key=lambda site: site.order))
