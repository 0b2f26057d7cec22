"""The last step: the fused graphs of all programs become one table a site.

    before  calm:   update(%0, [calm[12], û anger[12]], …)   at post_block[12]
            formal: update(%0, [calm[12]], …)                at post_block[12]
    after   post_block[12]   bank  0 calm[12]  1 û anger[12]     calm: 2 columns   formal: 1

Needs: fused updates. Keeps: the order of columns; sites come in the order of the forward pass,
bank rows and selector bits in the order of first use. Directions are rounded to float32 here,
once. Refuses: more than 64 distinct selectors, more than 64 columns of a program at a site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from interv.errors import IntervError, raise_all
from interv.model import ModelFacts
from interv.passes.columns import Form
from interv.passes.constants import Constant, Row
from interv.passes.cost import Machine, cost_of
from interv.passes.ir import Graph, Node, Origin, is_op, ops_of
from interv.passes.ops import write
from interv.passes.plan import (
    MAX_COLUMNS,
    MAX_SELECTORS,
    Bank,
    PlacedColumn,
    PlacedSite,
    Plan,
)
from interv.sites import Site
from interv.spec import Conflict, Selector


def place(
    graphs: Mapping[str, Graph], conflicts: Mapping[str, Conflict], model: ModelFacts
) -> Plan:
    """Lay the programs out; raise E410 for too many selectors, E411 for too many columns."""
    tables: dict[Site, _Table] = {}
    selectors: dict[Selector, tuple[Origin, ...]] = {}
    for program, graph in graphs.items():
        for end in ops_of(graph):
            if is_op(end, write):
                site: Any = end.args[1]
                node: Any = end.args[2]
                tables.setdefault(site, _Table()).add(program, node, selectors)
    raise_all([*_too_many_selectors(selectors), *_too_many_columns(tables)])
    sites = tuple(tables[site].freeze(site) for site in sorted(tables, key=lambda site: site.order))
    sizes = [(len(one.bank), one.width) for one in sites]
    return Plan(
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        sites=sites,
        selectors=tuple(selectors),
        conflicts=MappingProxyType(dict(conflicts)),
        cost=cost_of(sizes, model.hidden_size, Machine()),
    )


@dataclass(slots=True)
class _Table:
    """One site while programs are added to it."""

    rows: dict[bytes, int] = field(default_factory=dict)
    bank: list[Bank] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    programs: dict[str, tuple[PlacedColumn, ...]] = field(default_factory=dict)

    def add(self, program: str, node: Node, selectors: dict[Selector, tuple[Origin, ...]]) -> None:
        args: Any = node.args
        where = [self.row(direction.args[0]) for direction in args[1]]
        placed = []
        for form, mask, origins in zip(args[3], args[2], node.meta["columns"], strict=True):
            selector = mask.args[1]
            selectors.setdefault(selector, origins)
            bit = list(selectors).index(selector)
            placed.append(PlacedColumn(_moved(form, where), bit, origins))
        self.programs[program] = tuple(placed)

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
        return PlacedSite(site, bank, tuple(self.labels), MappingProxyType(dict(self.programs)))


def rounded_row(row: Row) -> Bank:
    """Round a direction to float32 `[H]`."""
    return row.astype(np.float32)


def _moved(form: Form, where: list[int]) -> Form:
    return replace(form, a=where[form.a] if form.a >= 0 else -1, b=where[form.b])


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
