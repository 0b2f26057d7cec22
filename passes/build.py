"""Spec → graph: each statement becomes a read, its edit, and a write, in program order.

    steer calm at post_block[1..2] scale 1.5
    ->  %0: stream = read(streams, post_block[1..2])
        %1: direction = direction(calm, post_block[1..2])
        %2: mask = select(tokens, all)
        %3: stream = steer(%0, %1, 1.5, %2)
        %4: streams = write(streams, post_block[1..2], %3)

Needs a document that was checked. Sites stay as written until `resolve_sites`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import fx

from interv.document import Document
from interv.passes.constants import Vector
from interv.passes.ir import Graph, Node, Origin, call
from interv.passes.layers import Sites
from interv.passes.ops import ablate, cap, direction, read, steer, unit, write
from interv.passes.select import select
from interv.spec import Ablate, Cap, Steer


def build(document: Document, index: int, vectors: Mapping[str, Vector], layers: int) -> Graph:
    """Build the graph of the program at `index` in a document, for a model of `layers` blocks."""
    program = document.spec.programs[index]
    graph = fx.Graph()
    streams, tokens = graph.placeholder("streams"), graph.placeholder("tokens")
    for number, statement in enumerate(program.statements):
        path = ("programs", index, "statements", number)
        spans = (document.span(*path, part) for part in ("at", "vector"))
        origin = Origin(document.where(*path), document.span(*path), number, *spans)
        assert isinstance(statement, (Steer, Cap, Ablate)), "refused before"
        streams = _statement(graph, streams, tokens, statement, vectors, layers, origin)
    graph.output(streams)
    graph.lint()
    return graph


def _statement(
    graph: Graph,
    streams: Node,
    tokens: Node,
    statement: Steer | Cap | Ablate,
    vectors: Mapping[str, Vector],
    layers: int,
    origin: Origin,
) -> Node:
    at, at_once = Sites(statement.at, layers), {"origins": (origin,)}
    h = call(graph, read, streams, at, **at_once)
    v = call(graph, direction, vectors[statement.vector], at, **at_once)
    if not isinstance(statement, Steer):
        v = call(graph, unit, v, **at_once)
    mask = call(graph, select, tokens, statement.when, **at_once)
    match statement:
        case Steer():
            h = call(graph, steer, h, v, float(statement.scale), mask, **at_once)
        case Cap():
            low, high = _bounds(statement)
            h = call(graph, cap, h, v, low, high, float(statement.strength), mask, **at_once)
        case Ablate():
            h = call(graph, ablate, h, v, float(statement.strength), mask, **at_once)
    return call(graph, write, streams, at, h, **at_once)


def _bounds(statement: Cap) -> tuple[float, float]:
    low = -math.inf if statement.low is None else float(statement.low)
    return low, math.inf if statement.high is None else float(statement.high)
