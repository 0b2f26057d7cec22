"""A choice as the parts that a slot is composed of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from interv.codegen.bundle import INLINE, Bundle, Column
from interv.codegen.slot import Part, SlotRows, compose, part, parts
from interv.document.sites import Site
from interv.document.spec import Selector
from interv.runtime.choice import Choice


class Composer:
    """Composes the slots of one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._parts = parts(bundle.sites, bundle.programs)

    def part(self, program: str) -> Part:
        """Return the columns of one program of the bundle."""
        return self._parts[program]

    def rows(self, choice: Choice, bit: Callable[[Selector], int]) -> SlotRows:
        """Return what the slot of a choice holds; `bit` gives the bit of an inline selector."""
        terms = [(self._parts[name], multiplier) for name, multiplier in choice.terms]
        if choice.inline is not None:
            terms = [(self._inline(choice, bit), 1.0)]
        return compose(terms, self.bundle.width, self.bundle.conflict)

    def _inline(self, choice: Choice, bit: Callable[[Selector], int]) -> Part:
        assert choice.inline is not None
        columns: dict[Site, tuple[Column, ...]] = {}
        for index, column in choice.inline.columns:
            site = self.bundle.sites[index].site
            moved = replace(column, selector=bit(choice.inline.selectors[column.selector]))
            columns[site] = (*columns.get(site, ()), moved)
        places = [table.site for table in self.bundle.sites]
        if not choice.inline.programs:
            return part(places, columns, self.bundle.counted.index(INLINE))
        made = part(places, columns)
        order = np.argsort([index for index, _ in choice.inline.columns], kind="stable")
        made.columns["program"] = np.array(choice.inline.programs)[order]
        return made
