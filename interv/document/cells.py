"""The places of tokens that a selector can tell apart, as sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from interv.document.places import Columns, selected
from interv.document.spec import At, InPhase, Positions, Selector, Slice, Stride

# The parts that look at where a token is.
InPlace: TypeAlias = InPhase | At | Slice | Stride | Positions


class Cells:
    """The places of tokens; a set of them is an integer, a bit a place."""

    def __init__(self, places: Sequence[tuple[int, int]]) -> None:
        self._columns = tuple(zip(*reversed(places), strict=True))
        self._known: dict[tuple[int, int], int] = {}

    def beyond(self, axis: int, bound: int) -> int:
        """Return the places whose x (axis 0) or y (axis 1) is `bound` or more."""
        if (axis, bound) not in self._known:
            signs = ["1" if one >= bound else "0" for one in self._columns[axis]]
            self._known[axis, bound] = int("".join(signs), 2)
        return self._known[axis, bound]

    def truth(self, leaves: Iterable[Selector]) -> dict[Selector, int | frozenset[int | str]]:
        """Return the places that each part selects which asks for nothing else."""
        found = dict.fromkeys(one for one in leaves if isinstance(one, InPlace))
        return {one: self.of(one) for one in found}

    def of(self, leaf: InPlace) -> int:
        """Return the places that a part selects."""
        if isinstance(leaf, Stride | Positions):
            signs = selected(leaf, Columns.of(self._columns))
            return int("".join("1" if one else "0" for one in signs), 2)
        in_prompt, generated = leaf.phase == "prompt", self.beyond(1, 0)
        found = ~generated & self.beyond(0, 0) if in_prompt else generated
        if isinstance(leaf, InPhase):
            return found
        if isinstance(leaf, At):
            axis = 0 if in_prompt and leaf.index >= 0 else 1
            return found & self.beyond(axis, leaf.index) & ~self.beyond(axis, leaf.index + 1)
        if leaf.start is not None:
            found &= self.beyond(0 if in_prompt and leaf.start >= 0 else 1, leaf.start)
        if leaf.stop is not None:
            found &= ~self.beyond(0 if in_prompt and leaf.stop >= 0 else 1, leaf.stop)
        return found
