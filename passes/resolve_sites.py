"""Ranges, `*` and negative layers become the model's layers; one read and one write a site.

    before  %0 = read(streams, post_block[-2..-1])     steer calm, then cap anger at post_block[29]
    after   %0 = read(streams, post_block[28])         %4 = steer(%0, …)    write post_block[28]
            %6 = read(streams, post_block[29])         %8 = steer(%6, …)    %11 = cap(%8, …)   write

A gate at another site reads the stream there, as the statements before its own left it. A capture
takes the stream before all edits of its site, or after them.

Needs: a graph as `build` makes it. Keeps: the order of statements at a site; sites come in the
order of the forward pass. Refuses: what the model does not have (`graph/model_fit.py`), and gates
that come after an edit of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import fx

from interv.document.sites import Site
from interv.document.wording import layer_text
from interv.errors import raise_all
from interv.passes.graph.context import Context
from interv.passes.graph.ir import (
    Graph,
    Node,
    call,
    capture_of,
    gate_of,
    is_op,
    mask_of,
    merge_origins,
    ops_of,
    origins,
    rate_of,
    tidy,
)
from interv.passes.graph.model_fit import complaints, misfits, place_of
from interv.passes.graph.ops import EDITS, OPS, decay, emit, gate, read, unit, write
from interv.passes.graph.selector_masks import select

# What happens at a site: captures, edits, and gates of edits at later sites.
Items: TypeAlias = dict[Site, list[Node]]


def resolve_sites(graph: Graph, ctx: Context) -> Graph:
    """Resolve every site; raise E208, E218, E229, E240 to E243 for what the model has not."""
    edits = [node for node in ops_of(graph) if is_op(node, *EDITS)]
    emits = [node for node in ops_of(graph) if is_op(node, emit)]
    errors = [error for edit in edits for error in complaints(edit, ctx.model)]
    raise_all(errors + [error for node in emits for error in misfits(node, ctx.model)])
    items: Items = {}
    for node in emits:
        for site in place_of(node).expand():
            items.setdefault(site, []).append(node)
    for edit in edits:
        at = place_of(edit)
        own = gate_of(edit)
        if own is not None and own.args[0] is not edit.args[0]:
            # Listed before its edit: at a site that both have, it reads what the edit reads.
            items.setdefault(place_of(own).expand()[0], []).append(own)
        for site in at.expand():
            items.setdefault(site, []).append(edit)
        if len(at.expand()) > 1:
            layers = layer_text(site.layer for site in at.expand())
            ctx.remark(edit, f"{at} is {len(at.expand())} sites: layers {layers}")
    builder = _Builder.over(items)
    return tidy(builder.graph)


@dataclass(slots=True)
class _Builder:
    """The graph being made, and the directions, masks and gates that are there already."""

    graph: Graph
    tokens: Node
    streams: Node
    shared: dict[tuple[Any, ...], Node] = field(default_factory=dict)
    gates: dict[Node, Node] = field(default_factory=dict)
    alike: dict[Node, list[Node]] = field(default_factory=dict)  # what each shared node stands for

    @classmethod
    def over(cls, items: Items) -> _Builder:
        graph = fx.Graph()
        streams, tokens = graph.placeholder("streams"), graph.placeholder("tokens")
        self = cls(graph, tokens, streams)
        for site in sorted(items, key=lambda site: site.order):
            self.site(site, items[site])
        for node, alike in self.alike.items():
            node.meta["origins"] = merge_origins(*alike)
        graph.output(self.streams)
        return self

    def site(self, site: Site, items: Sequence[Node]) -> None:
        """Append one site: its captures, and between them its edits."""
        taken = [item for item in items if is_op(item, emit)]
        self.captures(site, [one for one in taken if not capture_of(one).after])
        self.edits(site, [item for item in items if item not in taken])
        self.captures(site, [one for one in taken if capture_of(one).after])

    def captures(self, site: Site, items: Sequence[Node]) -> None:
        """Append the captures of a site that are before its edits, or after them."""
        for item in items:
            where, capture = origins(item), capture_of(item)
            args = (self.streams, site, self.mask(item.args[2]), capture)
            self.streams = call(self.graph, emit, *args, origins=where)

    def edits(self, site: Site, items: Sequence[Node]) -> None:
        """Append a site's read, what happens there in listed order, and its write."""
        if not items:
            return
        every = merge_origins(*items)
        h = call(self.graph, read, self.streams, site, origins=every)
        for item in items:
            if is_op(item, gate):
                self.gates[item] = self.gate(item, h, site)
            else:
                h = self.edit(item, h, site)
        self.streams = call(self.graph, write, self.streams, site, h, origins=every)

    def edit(self, edit: Node, h: Node, site: Site) -> Node:
        """Append an edit, its own gate before it."""
        operands, own = self.operands(edit, site), gate_of(edit)
        if own is None:
            weight = self.mask(edit)
        elif own in self.gates:
            weight = self.gates[own]
        else:
            weight = self.gate(own, h, site)
        target: Any = edit.target
        return call(self.graph, target, h, *operands, weight, origins=origins(edit))

    def gate(self, node: Node, h: Node, site: Site) -> Node:
        """Append a gate that reads `h`."""
        operands, mask = self.operands(node, site), self.mask(node)
        return call(self.graph, gate, h, *operands, mask, origins=origins(node))

    def operands(self, node: Node, site: Site) -> list[Any]:
        """Return what stands between an op's stream and its weight, for the site's layer."""
        kinds = OPS[getattr(node.target, "__name__", "")].args[1:-1]
        return [
            self.operand(arg, site) if kind in ("direction", "rows", "map") else arg
            for kind, arg in zip(kinds, node.args[1:-1], strict=True)
        ]

    def operand(self, node: Any, site: Site) -> Node:
        """Return a direction or rows for a layer, the same node for the same vector and layer."""
        normal = is_op(node, unit)
        source = node.args[0] if normal else node
        value: Any = source.args[0]
        layer = -1 if value.layers is None else site.layer
        raw = self.once((value, layer), source.target, value, site, like=node)
        return self.once((value, layer, unit), unit, raw, like=node) if normal else raw

    def mask(self, node: Any) -> Node:
        """Return the mask of a selector, decaying or not, the same node for the same one."""
        selector, rate = mask_of(node).args[1], rate_of(node)
        mask = self.once((select, selector), select, self.tokens, selector, like=node)
        if rate == 1:
            return mask
        return self.once((decay, selector, rate), decay, self.tokens, rate, mask, like=node)

    def once(self, key: tuple[Any, ...], target: Any, *args: Any, like: Node) -> Node:
        if key not in self.shared:
            self.shared[key] = call(self.graph, target, *args, origins=origins(like))
        node = self.shared[key]
        # Merged once, at the end: many statements may share one node.
        self.alike.setdefault(node, []).append(like)
        return node
