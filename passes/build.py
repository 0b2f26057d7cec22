"""Spec → graph: each statement becomes a read, its edit, and a write, in program order.

    steer calm at post_block[1..2] scale 1.5
    ->  %0: stream = read(streams, post_block[1..2])
        %1: direction = direction(calm, post_block[1..2])
        %2: mask = select(tokens, all)
        %3: stream = steer(%0, %1, 1.5, %2)
        %4: streams = write(streams, post_block[1..2], %3)

    capture at post_block[3] tokens prompt[-1] to acts
    ->  %0: mask = select(tokens, prompt[-1])
        %1: streams = emit(streams, post_block[3], %0, to acts)

Captures stand before all edits, those of `after` behind all: at a site they take the stream as
the edits found it, or as they left it.

Needs a document that was checked. Sites stay as written until `resolve_sites`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

from interv.document.document import Document
from interv.document.positions import merged
from interv.document.spec import (
    Ablate,
    Apply,
    Cap,
    Capture,
    Edit,
    Gate,
    Replace,
    Rotate,
    Statement,
    Steer,
)
from interv.passes.graph.column import Mode
from interv.passes.graph.directions import Adapter, Vector
from interv.passes.graph.ir import Graph, Node, Origin, Target, call
from interv.passes.graph.layer_ranges import Sites
from interv.passes.graph.opening import Opening
from interv.passes.graph.ops import (
    ablate,
    ablate_keeping_norm,
    ablate_over,
    ablate_over_keeping_norm,
    adapter,
    cap,
    decay,
    direction,
    emit,
    exchange,
    gate,
    linear,
    linear_map,
    low_rank,
    read,
    replace,
    rotate,
    steer,
    steer_by_norm,
    steer_by_norm_keeping_norm,
    steer_keeping_norm,
    unit,
    write,
)
from interv.passes.graph.selector_masks import select


def build(
    document: Document,
    index: int,
    vectors: Mapping[str, Vector],
    layers: int,
    adapters: Mapping[str, Adapter] | None = None,
) -> Graph:
    """Build the graph of the program at `index` in a document, for a model of `layers` blocks."""
    program = document.spec.programs[index]
    graph = fx.Graph()
    streams, tokens = graph.placeholder("streams"), graph.placeholder("tokens")
    for number, statement in sorted(enumerate(program.statements), key=_in_turn):
        path = ("programs", index, "statements", number)
        noun = "adapter" if isinstance(statement, Apply) else "vector"
        second = "towards" if isinstance(statement, Rotate) else "by"
        parts = (("at",), (noun,), (second,), ("gate", "vector"), ("gate", "site"))
        spans = (document.span(*path, *part) for part in parts)
        origin = Origin(document.where(*path), document.span(*path), number, *spans)
        made = _Statement(graph, tokens, vectors, adapters or {}, layers, origin)
        streams = made.add(streams, statement)
    graph.output(streams)
    graph.lint()
    return graph


def _in_turn(numbered: tuple[int, Statement]) -> tuple[int, int]:
    """Return the sort key of statements: captures first, those of `after` last."""
    number, statement = numbered
    if isinstance(statement, Capture):
        return (2 if statement.after else 0, number)
    return (1, number)


@dataclass(frozen=True, slots=True, eq=False)
class _Statement:
    """One statement while its ops are appended to the graph."""

    graph: Graph
    tokens: Node
    vectors: Mapping[str, Vector]
    adapters: Mapping[str, Adapter]
    layers: int
    origin: Origin

    def add(self, streams: Node, edit: Edit | Capture) -> Node:
        at = Sites(edit.at, self.layers)
        if isinstance(edit, Capture):
            mask = self.call(select, self.tokens, merged(edit.tokens))
            return self.call(emit, streams, at, mask, edit)
        h = self.call(read, streams, at)
        return self.call(write, streams, at, self.edit(h, at, streams, edit))

    def call(self, target: object, *args: object) -> Node:
        return call(self.graph, target, *args, origins=(self.origin,))  # type: ignore[arg-type]

    def direction(self, name: str, at: Sites) -> Node:
        return self.call(direction, self.vectors[name], at)

    def edit(self, h: Node, at: Sites, streams: Node, edit: Edit) -> Node:
        match edit:
            case Steer(vector=v):
                target, found = _STEERS[edit.by_norm, edit.keep_norm], self.direction(v, at)
                found = self.call(unit, found) if edit.by_norm else found
                mask = self.mask(h, at, streams, edit)
                return self.call(target, h, found, float(edit.scale), mask)
            case Replace(vector=v, by=None):
                numbers = float(edit.scale), float(edit.strength)
                mask = self.mask(h, at, streams, edit)
                return self.call(replace, h, self.direction(v, at), *numbers, mask)
            case Replace(vector=v, by=str(by)):
                rows = self.direction(v, at), self.direction(by, at)
                mask = self.mask(h, at, streams, edit)
                return self.call(exchange, h, *rows, float(edit.strength), mask)
            case Apply():
                value = self.adapters[edit.adapter]
                source, apply = (linear_map, linear) if value.linear else (adapter, low_rank)
                found = self.call(source, value, at)
                mask = self.mask(h, at, streams, edit)
                return self.call(apply, h, found, float(edit.scale), mask)
            case Cap(vector=v):
                u = self.call(unit, self.direction(v, at))
                mask = self.mask(h, at, streams, edit)
                return self.call(cap, h, u, *_bounds(edit), float(edit.strength), mask)
            case Rotate(vector=v, towards=w):
                plane = [self.call(unit, self.direction(name, at)) for name in (v, w)]
                low = 0.0 if edit.adaptive else -math.inf
                mask = self.mask(h, at, streams, edit)
                return self.call(rotate, h, *plane, float(edit.to), low, float(edit.strength), mask)
            case Ablate(vector=v):
                u = self.call(unit, self.direction(v, at))
                mask = self.mask(h, at, streams, edit)
                target = _ABLATES[edit.over, edit.keep_norm]
                return self.call(target, h, u, float(edit.strength), mask)
        raise AssertionError(f"no op for {edit}")

    def mask(self, h: Node, at: Sites, streams: Node, edit: Edit) -> Node:
        """Append what says which tokens are edited, and how much of the edit they get."""
        chosen = self.call(select, self.tokens, merged(edit.when))
        if edit.decay != 1:
            chosen = self.call(decay, self.tokens, float(edit.decay), chosen)
        if edit.gate is None:
            return chosen
        site = at if edit.gate.site is None else Sites(edit.gate.site, self.layers)
        h = h if edit.gate.site is None else self.call(read, streams, site)
        w = self.direction(edit.gate.vector, site)
        w = self.call(unit, w) if edit.gate.cosine else w
        return self.call(gate, h, w, _opening(edit.gate), chosen)


# By whether the scale counts in norms, or the strength may be above 1, and whether the norm is
# kept.
_STEERS: Mapping[tuple[bool, bool], Target] = {
    (False, False): steer,
    (False, True): steer_keeping_norm,
    (True, False): steer_by_norm,
    (True, True): steer_by_norm_keeping_norm,
}
_ABLATES: Mapping[tuple[bool, bool], Target] = {
    (False, False): ablate,
    (False, True): ablate_keeping_norm,
    (True, False): ablate_over,
    (True, True): ablate_over_keeping_norm,
}


def _opening(said: Gate) -> Opening:
    mode = Mode.ABSOLUTE if said.absolute else Mode.PLAIN
    mode |= Mode.COSINE if said.cosine else Mode.PLAIN
    if said.above is None and said.below is None:
        return Opening(float(said.sharpness), float(said.threshold), mode=mode)
    low = -math.inf if said.above is None else float(said.above)
    high = math.inf if said.below is None else float(said.below)
    return Opening(low=low, high=high, mode=mode | Mode.STEP)


def _bounds(statement: Cap) -> tuple[float, float]:
    low = -math.inf if statement.low is None else float(statement.low)
    return low, math.inf if statement.high is None else float(statement.high)
