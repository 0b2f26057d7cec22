"""The last step: the fused graphs of all programs become one table a site.

    before  calm:   update(%0, [calm[12], û anger[12]], …)   at post_block[12]
            formal: update(%0, [calm[12]], …)                at post_block[12]
    after   post_block[12]   bank  0 calm[12]  1 û anger[12]     calm: 2 columns   formal: 1

Needs: fused updates. Keeps: the order of columns; sites come in the order of the forward pass,
bank rows and selector bits in the order of first use. Directions are rounded to float32 here,
once. A capture is listed once for all of its sites, and takes the value that an update there has
read already. Refuses: more than 64 distinct selectors, more than 64 captures, more than 64 columns
of a program at a site, more than 64 gates of a program that weigh edits of later sites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from interv.document.sites import Site
from interv.document.spec import Conflict, Selector
from interv.errors import IntervError, raise_all
from interv.model import ModelFacts
from interv.passes.graph.canonical import probe
from interv.passes.graph.column import Form
from interv.passes.graph.directions import Constant, Map, Row, Vector, unit_vector
from interv.passes.graph.ir import (
    Graph,
    Node,
    Origin,
    capture_of,
    is_op,
    ops_of,
    origins,
    selector_of,
)
from interv.passes.graph.ops import emit, write
from interv.passes.placing.cost import Machine, cost_of
from interv.passes.placing.plan import (
    GATES,
    MAX_CAPTURES,
    MAX_COLUMNS,
    MAX_SELECTORS,
    MOST_GATES,
    Bank,
    PlacedCapture,
    PlacedColumn,
    PlacedSite,
    Plan,
)


def place(
    graphs: Mapping[str, Graph],
    conflicts: Mapping[str, Conflict],
    model: ModelFacts,
    spare: Sequence[Vector] = (),
) -> Plan:
    """Lay the programs out.

    Raises E410, E411, E416 and E420 for too many selectors, columns, gates and captures.

    The banks also hold the directions of `spare`, as they are and of length 1, for programs that
    come later.
    """
    tables: dict[Site, _Table] = {}
    selectors: dict[Selector, tuple[Origin, ...]] = {}
    for program, graph in graphs.items():
        places = stores(graph)
        for site, node in updates(graph):
            tables.setdefault(site, _Table()).add(program, site, node, places, selectors)
    captures = [one for item in graphs.items() for one in _captures(*item, selectors)]
    for site, table in tables.items():
        for vector in spare:
            if vector.fits(site.layer, model.hidden_size):
                table.row(Constant(str(vector), vector.at(site.layer)))
                table.row(Constant(f"û {vector}", unit_vector(vector.at(site.layer))))
    raise_all(
        [
            *_too_many_selectors(selectors),
            *_too_many_columns(tables),
            *_too_many_captures(captures),
            *(error for item in graphs.items() for error in _too_many_gates(*item)),
        ]
    )
    sites = tuple(tables[site].freeze(site) for site in sorted(tables, key=lambda site: site.order))
    sizes = [(len(one.bank), one.width) for one in sites]
    maps = sum(len(one.maps) for one in sites)
    return Plan(
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        sites=sites,
        selectors=tuple(selectors),
        conflicts=MappingProxyType(dict(conflicts)),
        cost=cost_of(sizes, model.hidden_size, Machine(), maps),
        captures=tuple(captures),
    )


def _captures(
    program: str, graph: Graph, selectors: dict[Selector, tuple[Origin, ...]]
) -> Iterator[PlacedCapture]:
    """Yield the captures of a program, each with all of its sites, as they are listed."""
    taken: dict[Origin, list[Node]] = {}
    for node in ops_of(graph):
        if is_op(node, emit):
            taken.setdefault(origins(node)[0], []).append(node)
    for origin, nodes in sorted(taken.items(), key=lambda item: item[0].order):
        selector = selector_of(nodes[0].args[2])  # type: ignore[arg-type]
        selectors.setdefault(selector, (origin,))
        sites: Any = tuple(node.args[1] for node in nodes)
        place = list(selectors).index(selector)
        yield PlacedCapture(program, capture_of(nodes[0]), sites, place, origin)


def updates(graph: Graph) -> Iterator[tuple[Site, Node]]:
    """Yield the fused update of each site that a graph writes."""
    for end in ops_of(graph):
        if is_op(end, write):
            site: Any = end.args[1]
            node: Any = end.args[2]
            yield site, node


# The gates that weigh edits of later sites: a site, a column, and the place of its weight.
Stores: TypeAlias = Mapping[tuple[Site, int], int]


def stores(graph: Graph) -> Stores:
    """Give each gate that weighs an edit of a later site its place, in the order of the graph."""
    found: dict[tuple[Site, int], int] = {}
    for node in ops_of(graph):
        if is_op(node, probe):
            found.setdefault(_gate(node), len(found))
    return found


def _gate(node: Node) -> tuple[Site, int]:
    args: Any = node.args
    return args[0].args[1], args[4]


def columns_of(
    site: Site, node: Node, places: Stores, row: Callable[[Constant], int]
) -> Iterator[tuple[PlacedColumn, Selector]]:
    """Yield an update's columns with their selectors; `row` gives a direction's bank row.

    The columns' own selectors are not numbered yet.
    """
    args: Any = node.args
    where = [row(direction.args[0]) for direction in args[1]]
    columns = zip(args[3], args[2], node.meta["columns"], strict=True)
    for j, (form, mask, where_from) in enumerate(columns):
        gate = GATES + places[_gate(mask)] if is_op(mask, probe) else form.gate
        store = places.get((site, j), -1)
        yield PlacedColumn(_moved(form, where), -1, where_from, gate, store), selector_of(mask)


@dataclass(slots=True)
class _Table:
    """One site while programs are added to it."""

    rows: dict[bytes, int] = field(default_factory=dict)
    bank: list[Bank] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    programs: dict[str, tuple[PlacedColumn, ...]] = field(default_factory=dict)
    maps: dict[str, Map] = field(default_factory=dict)  # by digest

    def add(
        self,
        program: str,
        site: Site,
        node: Node,
        places: Stores,
        selectors: dict[Selector, tuple[Origin, ...]],
    ) -> None:
        placed = []
        for column, selector in columns_of(site, node, places, self.row):
            selectors.setdefault(selector, column.origins)
            column = self.linear(column, column.form.map)
            placed.append(replace(column, selector=list(selectors).index(selector)))
        self.programs[program] = tuple(placed)

    def linear(self, column: PlacedColumn, full: Map | None) -> PlacedColumn:
        """Give a LINEAR column the number of its map, a new one if its bytes are new."""
        if full is None:
            return column
        self.maps.setdefault(full.digest, full)
        nothing = self.row(Constant("0", np.zeros(len(full.bias))))
        number = list(self.maps).index(full.digest)
        return replace(column, form=replace(column.form, b=nothing), store=number)

    def row(self, value: Constant) -> int:
        """Return the bank row of a direction, a new one if its float32 bytes are new."""
        rounded = rounded_row(value.array)
        key = rounded.tobytes()
        if key not in self.rows:
            self.rows[key] = len(self.bank)
            self.bank.append(rounded)
            self.labels.append(value.label)
        return self.rows[key]

    def freeze(self, site: Site) -> PlacedSite:
        bank = np.stack(self.bank)
        bank.setflags(write=False)
        programs, maps = MappingProxyType(dict(self.programs)), tuple(self.maps.values())
        return PlacedSite(site, bank, tuple(self.labels), programs, maps)


def rounded_row(row: Row) -> Bank:
    """Round a direction to float32 `[H]`."""
    return row.astype(np.float32)


def _moved(form: Form, where: list[int]) -> Form:
    a, b = (where[row] if row >= 0 else -1 for row in (form.a, form.b))
    return replace(form, a=a, b=b)


def _too_many_selectors(selectors: Mapping[Selector, tuple[Origin, ...]]) -> list[IntervError]:
    if len(selectors) <= MAX_SELECTORS:
        return []
    first = list(selectors.values())[MAX_SELECTORS][0]
    return [
        IntervError(
            "E410",
            f"{len(selectors)} different selectors are used, {MAX_SELECTORS} are possible",
            first.span,
            "one too many",
            helps=["put programs that are not used together into engines of their own"],
        )
    ]


def _too_many_captures(captures: Sequence[PlacedCapture]) -> Iterator[IntervError]:
    if len(captures) > MAX_CAPTURES:
        yield IntervError(
            "E420",
            f"{len(captures)} captures are declared, {MAX_CAPTURES} are possible",
            captures[MAX_CAPTURES].origin.span,
            "one too many",
            helps=["one capture may list several layers: at post_block[10..20]"],
        )


def _too_many_gates(program: str, graph: Graph) -> Iterator[IntervError]:
    count = len(stores(graph))
    if count > MOST_GATES:
        last = [node for node in ops_of(graph) if is_op(node, probe)][-1]
        yield IntervError(
            "E416",
            f"program '{program}' has {count} gates that weigh edits of later sites,"
            f" {MOST_GATES} are possible",
            origins(last)[0].span,
            "one too many",
        )


def _too_many_columns(tables: Mapping[Site, _Table]) -> list[IntervError]:
    found: dict[str, IntervError] = {}
    for site, table in tables.items():
        for program, columns in table.programs.items():
            if len(columns) > MAX_COLUMNS and program not in found:
                found[program] = IntervError(
                    "E411",
                    f"program '{program}' has {len(columns)} columns at {site},"
                    f" {MAX_COLUMNS} are possible",
                    columns[MAX_COLUMNS].origins[0].span,
                    "one too many",
                )
    return list(found.values())
