"""The programs of one request under `conflict joint`: the smallest change after which all hold.

Where caps of several programs apply to a token they are one problem, as they are within a program
that says so. It is solved at admission: nothing but scalars, rows of the banks and selectors come
out of it, so a request's programs travel and share slots as an inline program does. Directions
that no bank holds cannot be made then: where a program of its own would make pins orthogonal,
sweeps solve the caps as they are.

Tokens for which caps of one program only hold keep that program's columns, with a narrower
selector; so do all tokens at sites where programs do not meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from interv.codegen.bundle import Bundle, Column, SiteTable
from interv.document.spec import Selector
from interv.errors import IntervError, raise_all
from interv.model import ModelFacts
from interv.passes.caps.bounds import Bound, Unsolvable
from interv.passes.caps.halfspaces import DEPENDENT
from interv.passes.caps.joint_errors import MOST_SELECTORS
from interv.passes.caps.joint_problem import Solved, as_they_are, solve
from interv.passes.graph.column import Kind
from interv.passes.graph.context import Context
from interv.passes.graph.directions import unit_vector
from interv.passes.placing.plan import GATES
from interv.passes.solve_joint import holding
from interv.request.inline import Inline, spare_bits
from interv.request.joint_refusals import MOST_CAPS, Line, Refusals


def compile_joint(asked: str, terms: Sequence[tuple[str, float]], bundle: Bundle) -> Inline | None:
    """Return what a request's programs are together; None where no two of them meet.

    `terms` are programs with their multipliers, in the order of the request. Raises IntervError:
    E883 for edits that meet and are no caps of strength 1, E884 for too many of them, E885 for
    edits of one program that do not hold together by its own policy, E886 for caps that cannot
    all hold, E887 for directions that sweeps cannot take apart, E410 for too many selectors.
    """
    facts = ModelFacts("", "", bundle.hidden_size, bundle.num_layers)
    made = _Made(bundle, Context("", "joint", facts), Refusals(asked))
    for index, table in enumerate(bundle.sites):
        lines = list(_lines(table, terms, bundle))
        _Site(index, table, lines, made).add()
    raise_all(made.refusals.errors())
    if not made.met:
        return None
    own = sum(1 for one in made.selectors if one not in bundle.selectors)
    if own > spare_bits(bundle):
        said = f"{own} different selectors are used, {spare_bits(bundle)} are possible"
        raise IntervError("E410", said, notes=[f"in the request: {asked}"])
    return Inline(tuple(made.columns), tuple(made.selectors), None, tuple(made.programs))


def _lines(table: SiteTable, terms: Sequence[tuple[str, float]], bundle: Bundle) -> Iterator[Line]:
    """Yield the columns of a site, scaled as their programs are."""
    kept = 0
    for name, multiplier in terms:
        for number, one in enumerate(table.programs.get(name, ())):
            selector = bundle.selectors[one.selector]
            yield Line(name, number, times(one, multiplier), selector, kept)
        kept += bundle.stores(name)


def times(column: Column, multiplier: float) -> Column:
    """Return a column that does `multiplier` times as much; a gate stays as it is."""
    if column.kind == Kind.GATE:
        return column
    alpha = column.alpha if column.kind == Kind.REPLACE else column.alpha * multiplier
    strength = min(1.0, column.strength * multiplier)
    return replace(column, alpha=alpha, beta=column.beta * multiplier, strength=strength)


@dataclass(slots=True)
class _Made:
    """What has been put together of a request."""

    bundle: Bundle
    ctx: Context
    refusals: Refusals
    met: bool = False
    columns: list[tuple[int, Column]] = field(default_factory=list)
    programs: list[int] = field(default_factory=list)  # what each column counts for
    selectors: dict[Selector, int] = field(default_factory=dict)

    def add(self, site: int, column: Column, selector: Selector, program: str) -> None:
        bit = self.selectors.setdefault(selector, len(self.selectors))
        self.columns.append((site, replace(column, selector=bit, origin=())))
        self.programs.append(self.bundle.programs.index(program))


@dataclass(slots=True)
class _Site:
    """One site while the columns of its programs are put together."""

    index: int
    table: SiteTable
    lines: Sequence[Line]
    made: _Made
    placed: int = 0

    def add(self) -> None:
        meeting = [line for line in self.lines if any(True for _ in self._others(line))]
        if meeting and self._fit(meeting):
            self.made.met = True
        for name in dict.fromkeys(line.program for line in self.lines):
            self._own([line for line in self.lines if line.program == name])
        if not meeting:
            return
        if len(kinds := self._classes(meeting)) > MOST_SELECTORS:
            self.made.refusals.crowd(self.table.site, len(kinds), "selectors", MOST_SELECTORS)
            return
        for selector, there in self._regions(meeting, kinds):
            self._solve(selector, there)
        width = self.made.bundle.width
        if self.placed > width:
            self.made.refusals.crowd(self.table.site, self.placed, "columns", width)

    def _others(self, line: Line) -> Iterator[Line]:
        """Yield the edits of other programs that can apply to a token that this one edits."""
        if line.column.kind == Kind.GATE:
            return
        for other in self.lines:
            edits = other.program != line.program and other.column.kind != Kind.GATE
            if edits and self.made.ctx.overlap(line.selector, other.selector):
                yield other

    def _fit(self, meeting: Sequence[Line]) -> bool:
        """Say whether edits that meet are caps that can be solved; note what is not."""
        refusals, site = self.made.refusals, self.table.site
        unfit = [line for line in meeting if line.unfit]
        for line in unfit:
            refusals.unfit(site, line, next(self._others(line)))
        if len(meeting) > MOST_CAPS:
            refusals.crowd(site, len(meeting), "caps", MOST_CAPS)
        return not unfit and len(meeting) <= MOST_CAPS

    def _own(self, lines: Sequence[Line]) -> None:
        """Add the columns of one program, for the tokens that no other one edits."""
        narrow = [self._narrowed(line) for line in lines]
        kept = [line for line, selector in zip(lines, narrow, strict=True) if selector is not None]
        moved = {line.number: self.placed + i for i, line in enumerate(kept)}
        for line, selector in zip(lines, narrow, strict=True):
            if selector is not None:
                self._place(_moved(line, moved), selector, line.program)

    def _narrowed(self, line: Line) -> Selector | None:
        others = list(dict.fromkeys(other.selector for other in self._others(line)))
        return holding([line.selector], others, self.made.ctx) if others else line.selector

    def _place(self, column: Column, selector: Selector, program: str) -> None:
        self.made.add(self.index, column, selector, program)
        self.placed += 1

    def _classes(self, meeting: Sequence[Line]) -> list[Selector]:
        found: list[Selector] = []
        for line in meeting:
            if not any(self.made.ctx.same(one, line.selector) for one in found):
                found.append(line.selector)
        return found

    def _regions(
        self, meeting: Sequence[Line], kinds: Sequence[Selector]
    ) -> Iterator[tuple[Selector, list[Line]]]:
        """Yield each set of tokens for which caps of several programs hold, with those caps."""
        for holds in product((True, False), repeat=len(kinds)):
            inside = [one for one, held in zip(kinds, holds, strict=True) if held]
            outside = [one for one, held in zip(kinds, holds, strict=True) if not held]
            there = [
                line
                for line in meeting
                if any(self.made.ctx.same(line.selector, one) for one in inside)
            ]
            if len({line.program for line in there}) > 1:
                selector = holding(inside, outside, self.made.ctx)
                if selector is not None:
                    yield selector, there

    def _solve(self, selector: Selector, lines: list[Line]) -> None:
        """Add the columns after which all caps of a set of tokens hold."""
        if any(line.unfit for line in lines) or len(lines) > MOST_CAPS:
            return  # noted already
        rows = [unit_vector(self.table.bank[one.column.a].astype(np.float64)) for one in lines]
        if (pair := _apart(lines, rows)) is not None:
            self.made.refusals.apart(self.table.site, *pair)
            return
        bounds = [
            Bound(row, line.column.low, line.column.high, (i,))
            for i, (line, row) in enumerate(zip(lines, rows, strict=True))
        ]
        try:
            solved = _solved(bounds)
        except Unsolvable as found:
            self.made.refusals.unsolvable(self.table.site, lines, found)
            return
        for one in solved.caps:
            self._place(_cap(lines, one), selector, lines[one.of[0]].program)
        for block in solved.blocks:
            first = self.placed
            for k, one in enumerate(block):
                others = sum(1 << (first + i) for i in range(len(block)) if i != k)
                size = len(block) if k == 0 else 0
                column = replace(_cap(lines, one), sees=others, kind=Kind.JOINT, block=size)
                self._place(column, selector, lines[one.of[0]].program)


def _moved(line: Line, moved: Mapping[int, int]) -> Column:
    """Return a program's column with what it names where that stands now."""
    one = line.column
    sees = sum(1 << new for old, new in moved.items() if one.sees >> old & 1)
    gate = moved[one.gate] if 0 <= one.gate < GATES else one.gate
    gate = gate + line.kept if gate >= GATES and one.gate >= GATES else gate
    stored = one.kind == Kind.GATE and one.store >= 0
    return replace(one, sees=sees, gate=gate, store=one.store + line.kept * stored)


def _apart(lines: Sequence[Line], rows: Sequence[np.ndarray]) -> tuple[Line, Line] | None:
    """Return two caps of one program that do not hold together by its own policy."""
    for j, later in enumerate(lines):
        for i, earlier in enumerate(lines[:j]):
            joint = later.column.kind == earlier.column.kind == Kind.JOINT
            own = earlier.program == later.program and not joint
            if own and abs(float(rows[i] @ rows[j])) > DEPENDENT:
                return earlier, later
    return None


def _solved(bounds: Sequence[Bound]) -> Solved:
    """Solve caps with the directions that the banks hold.

    What cannot all hold is found in any case; where the solution asks for new directions, sweeps
    over the caps as they are find the same change.
    """
    solved = solve(bounds)
    every = (*solved.caps, *(one for block in solved.blocks for one in block))
    return as_they_are(solved, bounds) if any(one.off for one in every) else solved


def _cap(lines: Sequence[Line], one: Bound) -> Column:
    row = lines[one.of[0]].column.a
    return Column(row, row, strength=1.0, low=one.low, high=one.high)
