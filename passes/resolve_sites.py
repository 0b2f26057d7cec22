"""Ranges, `*` and negative layers become the model's layers; one read and one write a site.

    before  %0 = read(streams, post_block[-2..-1])     steer calm, then cap anger at post_block[29]
    after   %0 = read(streams, post_block[28])         %4 = steer(%0, …)    write post_block[28]
            %6 = read(streams, post_block[29])         %8 = steer(%6, …)    %11 = cap(%8, …)   write

Needs: a graph as `build` makes it. Keeps: the order of statements at a site; sites come in the
order of the forward pass. Refuses: layers outside the model or listed twice, empty ranges,
vectors without a direction for a layer or of another width than the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from interv.errors import IntervError, raise_all
from interv.model import ModelFacts
from interv.passes.constants import Vector
from interv.passes.context import Context
from interv.passes.ir import Graph, Node, call, is_op, merge_origins, ops_of, origins, tidy
from interv.passes.layers import Sites
from interv.passes.ops import EDITS, direction, read, unit, write
from interv.passes.select import select
from interv.sites import Site
from interv.spec import LayerRange
from interv.wording import item_text, layer_text


def resolve_sites(graph: Graph, ctx: Context) -> Graph:
    """Resolve every site; raise E208, E229, E240 to E243 for what the model does not have."""
    edits = [node for node in ops_of(graph) if is_op(node, *EDITS)]
    raise_all([error for edit in edits for error in _complaints(edit, ctx)])
    by_site: dict[Site, list[Node]] = {}
    for edit in edits:
        at = _place(edit)
        for site in at.expand():
            by_site.setdefault(site, []).append(edit)
        if len(at.expand()) > 1:
            count = len(at.expand())
            ctx.remark(edit, f"{at} is {count} sites: layers {_spell(at)}")
    builder = _Builder.over(by_site)
    return tidy(builder.graph)


@dataclass(slots=True)
class _Builder:
    """The graph being made, and the directions and masks that are there already."""

    graph: Graph
    tokens: Node
    streams: Node
    shared: dict[tuple[Any, ...], Node] = field(default_factory=dict)

    @classmethod
    def over(cls, by_site: dict[Site, list[Node]]) -> _Builder:
        graph = fx.Graph()
        streams, tokens = graph.placeholder("streams"), graph.placeholder("tokens")
        self = cls(graph, tokens, streams)
        for site in sorted(by_site, key=lambda site: site.order):
            self.site(site, by_site[site])
        graph.output(self.streams)
        return self

    def site(self, site: Site, edits: Sequence[Node]) -> None:
        """Append one site: its read, its edits in listed order, its write."""
        every = merge_origins(*edits)
        h = call(self.graph, read, self.streams, site, origins=every)
        for edit in edits:
            v = self.direction(edit.args[1], site)
            numbers = edit.args[2:-1]
            mask = self.mask(edit.args[-1])
            target: Any = edit.target
            h = call(self.graph, target, h, v, *numbers, mask, origins=origins(edit))
        self.streams = call(self.graph, write, self.streams, site, h, origins=every)

    def direction(self, node: Any, site: Site) -> Node:
        """Return the direction for a layer, the same node for the same vector and layer."""
        normal = is_op(node, unit)
        source = node.args[0] if normal else node
        vector: Vector = source.args[0]
        layer = -1 if vector.layers is None else site.layer
        raw = self.once((vector, layer), direction, vector, site, like=node)
        return self.once((vector, layer, unit), unit, raw, like=node) if normal else raw

    def mask(self, node: Any) -> Node:
        """Return the mask of a selector, the same node for the same selector."""
        return self.once((select, node.args[1]), select, self.tokens, node.args[1], like=node)

    def once(self, key: tuple[Any, ...], target: Any, *args: Any, like: Node) -> Node:
        if key not in self.shared:
            self.shared[key] = call(self.graph, target, *args, origins=origins(like))
        node = self.shared[key]
        node.meta["origins"] = merge_origins(node, like)
        return node


def _place(edit: Node) -> Sites:
    start: Any = edit.args[0]
    at: Sites = start.args[1]
    return at


def _spell(at: Sites) -> str:
    return layer_text(site.layer for site in at.expand())


def _complaints(edit: Node, ctx: Context) -> list[IntervError]:
    at, origin = _place(edit), origins(edit)[0]
    layers = [site.layer for site in at.expand()]
    twice = sorted({n for n in layers if layers.count(n) > 1})
    of_site = [error for item in at.ref.layers for error in _item_complaints(item, at, ctx.model)]
    if twice and not of_site:
        of_site.append(IntervError("E241", f"'{at}' lists layer {layer_text(twice)} twice"))
    of_vector = _vector_complaints(edit, at, ctx.model, lists_layers=not of_site)
    for error in of_site:
        error.span = origin.at or origin.span
    for error in of_vector:
        error.span = origin.vector or origin.span
    return [*of_site, *of_vector]


def _item_complaints(
    item: int | str | LayerRange, at: Sites, model: ModelFacts
) -> list[IntervError]:
    ends = _ends(item)
    outside = [n for n in ends if not -model.num_layers <= n < model.num_layers]
    last = model.num_layers - 1
    if outside:
        here = f"layers here: 0..{last}, or -{model.num_layers}..-1 from the end"
        text = f"'{model.name}' has no layer {outside[0]}: it has {model.num_layers} blocks"
        return [IntervError("E240", text, notes=[here])]
    if not at.layers(item):
        text = f"'{item_text(item)}' is an empty range"
        first, end = (at.layers(item).start, at.layers(item).stop - 1)
        helps = [f"layer {first} comes after layer {end}; did you mean '{end}..{first}'?"]
        return [IntervError("E208", text, helps=helps)]
    return []


def _ends(item: int | str | LayerRange) -> tuple[int, ...]:
    if isinstance(item, LayerRange):
        return (item.first, item.last)
    return (item,) if isinstance(item, int) else ()


def _vector_complaints(
    edit: Node, at: Sites, model: ModelFacts, *, lists_layers: bool
) -> list[IntervError]:
    source: Any = edit.args[1]
    vector: Vector = (source.args[0] if is_op(source, unit) else source).args[0]
    known, held = vector.directions, vector.layers
    found = []
    if known.width != model.hidden_size:
        text = f"vector '{vector}' is {known.width} wide, '{model.name}' {model.hidden_size}"
        helps = ["a vector fits the model that it was made on"]
        found.append(IntervError("E242", text, notes=_hint(vector), helps=helps))
    if known.rows is not None and known.rows != model.num_layers:
        text = f"vector '{vector}' has {known.rows} rows, '{model.name}' has {model.num_layers}"
        found.append(IntervError("E243", f"{text} blocks", notes=_hint(vector)))
    lost = [site.layer for site in at.expand() if held is not None and site.layer not in held]
    if lost and lists_layers:
        plural = "s" if len(lost) > 1 else ""
        text = f"vector '{vector}' has no direction for layer{plural} {layer_text(lost)}"
        has = f"layers of '{known.path.name}': {layer_text(held or ())}"
        found.append(IntervError("E229", text, notes=[has, *_hint(vector)]))
    return found


def _hint(vector: Vector) -> list[str]:
    made_for = vector.directions.hint
    return [f"the file was made for {made_for}"] if made_for else []
