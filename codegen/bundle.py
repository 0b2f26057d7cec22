"""What a compiled document is: tables of scalars and directions, ready for the runtime.

A bundle holds no torch object and no closure, so it travels to worker processes by pickle and
prints the same on any machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from interv.document.sites import Site
from interv.document.spec import Conflict, Selector, SinkDecl
from interv.passes.graph.column import Kind
from interv.passes.graph.directions import Map
from interv.passes.placing.plan import MAX_COLUMNS, MOST_GATES

if TYPE_CHECKING:
    from interv.kv.settings import KvSettings

# What all programs that requests bring along are counted as, and the least columns they have.
INLINE, INLINE_COLUMNS = "<inline>", 16
# Room for the caps of programs that are solved together, times those of every program.
JOINT_COLUMNS = 4


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a site's update; its meaning is that of `interv.passes.graph.column.Form`.

    `a` and `b` are rows of the site's bank, -1 for none. A `gate` of less than GATES is a column
    of the same update; from GATES on it is a place in the row of weights that each token has for
    gates of earlier sites, and `store` is the place that a GATE column writes its weight to. Of a
    LINEAR column `store` is the number of its map at the site, and `b` a row of zeros.
    """

    a: int
    b: int
    alpha: float = 0.0
    beta: float = 0.0
    strength: float = 0.0
    low: float = -np.inf
    high: float = np.inf
    selector: int = 0  # index into Bundle.selectors
    sees: int = 0  # bit i: this column reads what column i wrote
    kind: int = 0  # interv.passes.graph.column.Kind
    gate: int = -1
    store: int = -1
    block: int = 0  # of JOINT columns: how many are solved together
    mode: int = 0  # interv.passes.graph.column.Mode
    origin: tuple[str, ...] = ()  # source lines, for the explain


@dataclass(frozen=True, slots=True, eq=False)
class SiteTable:
    """Everything that any program does at one site."""

    site: Site
    bank: npt.NDArray[np.float32]  # [V, H], unique directions
    programs: Mapping[str, tuple[Column, ...]]  # programs without an edit here are absent
    maps: tuple[Map, ...] = ()  # full linear maps

    @property
    def width(self) -> int:
        """Return K, the most columns a program has here."""
        return max(len(columns) for columns in self.programs.values())


@dataclass(frozen=True, slots=True)
class SinkUse:
    """A sink that captures go to; relative paths are under `root`."""

    decl: SinkDecl
    root: Path


@dataclass(frozen=True, slots=True)
class CaptureTable:
    """What one capture statement takes of the requests that its program applies to."""

    program: str
    where: str  # "calm.interv:12"
    sites: tuple[Site, ...]  # in the order a forward pass reaches them
    after: bool  # as the site's edits left the stream
    selector: int  # index into Bundle.selectors
    sink: int  # index into Bundle.sinks
    rank: int | None = None
    sample: float | None = None
    marked: bool = False  # kept until the client marks the request


@dataclass(frozen=True, slots=True)
class Clash:
    """Two programs that one request cannot have together under `conflict error`, and where."""

    site: Site
    first: str  # source lines
    second: str


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
    conflict: Conflict = "sequential"  # where programs of one request meet
    clashes: Mapping[tuple[str, str], Clash] = field(default_factory=dict)  # by names, in order
    inline: bool = False  # requests may bring programs of their own
    captures: tuple[CaptureTable, ...] = ()
    sinks: tuple[SinkUse, ...] = ()
    kv: KvSettings | None = None  # what becomes of requests' KV caches
    compressed: Mapping[str, bool] = field(default_factory=dict)  # what programs say of them

    @property
    def spliced(self) -> tuple[Site, ...]:
        """Return every site that something happens at, in the order a forward pass reaches them."""
        taken = (site for one in self.captures for site in one.sites)
        found = dict.fromkeys((*(table.site for table in self.sites), *taken))
        return tuple(sorted(found, key=lambda site: site.order))

    @property
    def width(self) -> int:
        """Return K: room for every program at once, as far as a site has columns."""
        most = (sum(len(columns) for columns in t.programs.values()) for t in self.sites)
        least = INLINE_COLUMNS if self.inline else 1
        # Caps of several programs have columns for each set of tokens that they meet on.
        times = JOINT_COLUMNS if self.conflict == "joint" else 1
        return min(MAX_COLUMNS, max(least, times * max(most, default=1)))

    def stores(self, program: str) -> int:
        """Return how many gates a program has that weigh edits of later sites."""
        return stores(column for table in self.sites for column in table.programs.get(program, ()))

    @property
    def gates(self) -> int:
        """Return G: room for the gates of every program at once, and of an inline one."""
        wanted = sum(map(self.stores, self.programs)) + (INLINE_COLUMNS if self.inline else 0)
        return min(MOST_GATES, max(1, wanted))

    @property
    def counted(self) -> tuple[str, ...]:
        """Return the names under which edited rows are counted: programs, and inline ones."""
        return (*self.programs, INLINE) if self.inline else self.programs


def stores(columns: Iterable[Column]) -> int:
    """Return how many weights of gates some columns store."""
    kept = (column.store + 1 for column in columns if column.kind == Kind.GATE)
    return max(kept, default=0)
