"""What passes know besides the graph, and where they leave their remarks."""

from __future__ import annotations

from dataclasses import dataclass, field

from interv.document.selectors import implies, overlap
from interv.document.spec import Conflict, Selector
from interv.model import ModelFacts
from interv.passes.graph.ir import Node, Origin, origins


@dataclass(frozen=True, slots=True)
class Remark:
    """Something a pass did, or did not do (`done` is False) and why, at some statements."""

    where: tuple[Origin, ...]
    text: str
    done: bool = True


@dataclass(frozen=True, slots=True)
class Context:
    """One program's surroundings while it is compiled.

    `remarks` and the two tables of answers grow while passes run; they live as long as the
    compilation of one program.
    """

    program: str
    conflict: Conflict
    model: ModelFacts
    remarks: list[Remark] = field(default_factory=list)
    _said: set[Remark] = field(default_factory=set)
    _overlaps: dict[tuple[Selector, Selector], bool] = field(default_factory=dict)
    _implied: dict[tuple[Selector, Selector], bool] = field(default_factory=dict)

    def remark(
        self,
        node: Node,
        text: str,
        *,
        done: bool = True,
        where: tuple[Origin, ...] | None = None,
    ) -> None:
        """Note for the explain what was done at a node, or at some of its statements (`where`).

        The same note twice is kept once.
        """
        found = Remark(origins(node) if where is None else where, text, done)
        if found not in self._said:
            self._said.add(found)
            self.remarks.append(found)

    def overlap(self, a: Selector, b: Selector) -> bool:
        """Say whether both selectors can hold for one token."""
        if (a, b) not in self._overlaps:
            self._overlaps[a, b] = self._overlaps[b, a] = overlap(a, b)
        return self._overlaps[a, b]

    def same(self, a: Selector, b: Selector) -> bool:
        """Say whether two selectors hold for the same tokens."""
        return a == b or (self.implies(a, b) and self.implies(b, a))

    def implies(self, a: Selector, b: Selector) -> bool:
        """Say whether every token of `a` is one of `b`."""
        if (a, b) not in self._implied:
            self._implied[a, b] = implies(a, b)
        return self._implied[a, b]
