"""Plan → Bundle: numbers and digests only, the same bytes on any machine."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from interv.codegen.bundle import Bundle, CaptureTable, Clash, Column, SinkUse, SiteTable
from interv.document.selectors import overlap
from interv.document.sites import Site
from interv.document.spec import Conflict
from interv.passes.graph.column import Kind
from interv.passes.placing.plan import PlacedCapture, PlacedColumn, PlacedSite, Plan

# Raised whenever the spliced graph or the meaning of a column changes, so that neither a
# compiled graph nor cached keys and values of an older version are taken for this one's.
FORMAT = 4


def emit(
    plan: Plan,
    default: str | None,
    conflict: Conflict = "sequential",
    inline: bool = False,
    sinks: Mapping[str, Mapping[str, SinkUse]] = MappingProxyType({}),
) -> Bundle:
    """Return the bundle of a plan.

    `default` names the program for requests that say nothing, `conflict` says what happens where
    programs of one request meet, `inline` whether requests may bring programs of their own.
    `sinks` are those that captures may name, by program.
    """
    used = [sinks[one.program][one.capture.to] for one in plan.captures]
    listed = tuple(dict.fromkeys(used))
    return Bundle(
        hidden_size=plan.hidden_size,
        num_layers=plan.num_layers,
        sites=tuple(_table(placed) for placed in plan.sites),
        selectors=plan.selectors,
        programs=tuple(plan.conflicts),
        default=default,
        structure=structure_digest(plan),
        contents={name: contents_digest(plan, name) for name in plan.conflicts},
        where={site: _where(site, plan) for site in plan.spliced},
        conflict=conflict,
        clashes=_clashes(plan) if conflict == "error" else {},
        inline=inline,
        captures=tuple(map(_capture, plan.captures, map(listed.index, used))),
        sinks=listed,
    )


def _where(site: Site, plan: Plan) -> tuple[str, ...]:
    """Return the source lines that declare a site, each once."""
    edits = (line for placed in plan.sites if placed.site == site for line in placed.where)
    taken = (one.origin.where for one in plan.captures if site in one.sites)
    return tuple(dict.fromkeys((*edits, *taken)))


def _capture(placed: PlacedCapture, sink: int) -> CaptureTable:
    said = placed.capture
    marked = said.keep == "marked"
    rest = (placed.selector, sink, said.rank, said.sample, marked)
    return CaptureTable(placed.program, placed.origin.where, placed.sites, said.after, *rest)


def _clashes(plan: Plan) -> dict[tuple[str, str], Clash]:
    """Find the pairs of programs with edits of one site that can apply to one token."""
    meet = functools.cache(lambda i, j: overlap(plan.selectors[i], plan.selectors[j]))
    found: dict[tuple[str, str], Clash] = {}
    for placed in plan.sites:
        for first, second in itertools.permutations(placed.programs, 2):
            if (first, second) in found:
                continue
            pairs = itertools.product(placed.programs[first], placed.programs[second])
            for one, other in pairs:
                gates = Kind.GATE in (one.form.kind, other.form.kind)
                if not gates and meet(one.selector, other.selector):
                    lines = [", ".join(_lines(column)) for column in (one, other)]
                    found[first, second] = Clash(placed.site, *lines)
                    break
    return found


def _lines(column: PlacedColumn) -> tuple[str, ...]:
    return tuple(dict.fromkeys(origin.where for origin in column.origins))


def structure_digest(plan: Plan) -> str:
    """Return the sha256 of what the spliced graph depends on: sites, width and depth.

    No scale, vector or kind of edit enters: those live in buffers, and the graph stays as it is.
    """
    sites = [str(site) for site in plan.spliced]
    return _digest([FORMAT, plan.hidden_size, plan.num_layers, sites])


def contents_digest(plan: Plan, program: str) -> str:
    """Return the sha256 of what one program does, the bytes of its directions included."""
    sites: list[Any] = [
        [str(placed.site), [_contents(column, placed, plan) for column in columns]]
        for placed in plan.sites
        if (columns := placed.programs.get(program)) is not None
    ]
    taken = [_taken(one, plan) for one in plan.captures if one.program == program]
    sites += [taken] if taken else []
    return _digest([FORMAT, plan.hidden_size, plan.num_layers, plan.conflicts[program], sites])


def _taken(placed: PlacedCapture, plan: Plan) -> list[Any]:
    selector = plan.selectors[placed.selector].model_dump(mode="json")
    return [[str(site) for site in placed.sites], placed.capture.after, selector]


def _contents(column: PlacedColumn, placed: PlacedSite, plan: Plan) -> list[Any]:
    form = column.form
    scalars = (form.alpha, form.beta, form.strength, form.low, form.high)
    # Directions by their bytes and selectors by their text: rows of the bank and bits are
    # numbered over all programs, and another program must not change this one's digest.
    rows = [None if row < 0 else _row_digest(placed, row) for row in (form.a, form.b)]
    selector = plan.selectors[column.selector].model_dump(mode="json")
    rest = (form.sees, form.kind, form.block, column.gate, form.mode)
    last = column.store if form.map is None else form.map.digest
    numbers = (float(one).hex() for one in scalars)
    return [*rows, *numbers, *(int(one) for one in rest), last, selector]


def _row_digest(placed: PlacedSite, row: int) -> str:
    return hashlib.sha256(placed.bank[row].astype("<f4").tobytes()).hexdigest()


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _table(placed: PlacedSite) -> SiteTable:
    programs: Mapping[str, tuple[Column, ...]] = {
        name: tuple(_column(one) for one in columns) for name, columns in placed.programs.items()
    }
    return SiteTable(placed.site, placed.bank, programs, placed.maps)


def _column(placed: PlacedColumn) -> Column:
    return column(placed, placed.selector, _lines(placed))


def column(placed: PlacedColumn, selector: int, origin: tuple[str, ...]) -> Column:
    """Return a column whose form points into a site's bank."""
    form = placed.form
    return Column(
        a=form.a,
        b=form.b,
        alpha=form.alpha,
        beta=form.beta,
        strength=form.strength,
        low=form.low,
        high=form.high,
        selector=selector,
        sees=form.sees,
        kind=int(form.kind),
        gate=placed.gate,
        store=placed.store,
        block=form.block,
        mode=int(form.mode),
        origin=origin,
    )
