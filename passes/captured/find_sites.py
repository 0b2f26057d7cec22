"""Find the points of the residual stream in the graph that Dynamo captured of a model.

No architecture is named. A block is a numbered module; what crosses into it from before is the
stream, as one tensor or as a pair whose sum is the stream. Inside a block, the first sum of the
carried stream with something that depends on the attention is what the MLP reads: `post_attn`.

*Needs* `node.meta["nn_module_stack"]` and `node.meta["example_value"]`.
*Keeps* the graph as it is.
*Refuses*, with the reason, every site it cannot prove: a pair that is never summed, more than two
values between blocks, several streams side by side, attention and MLP side by side, a block that
runs more than once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch.fx import Graph, Node

from interv.document.sites import POST_BLOCK, PRE_ATTN, SITES, Site
from interv.passes.captured.dataflow import Flow, Keeps, reads
from interv.passes.captured.in_place import is_sum, operands
from interv.passes.captured.numbered_blocks import Block, find_blocks


@dataclass(frozen=True, slots=True)
class SplicePoint:
    """Where a site's update goes: its operands, and the node it must precede.

    The stream is `hidden + residual`, or `hidden` alone; both `[…, T, H]`.
    """

    site: Site
    hidden: Node
    residual: Node | None
    before: Node


@dataclass(frozen=True, slots=True)
class FoundSites:
    """The splice points of a graph, and why each other site of its blocks has none."""

    points: Mapping[Site, SplicePoint] = field(default_factory=dict)
    missing: Mapping[Site, str] = field(default_factory=dict)
    layers: tuple[int, ...] = ()


class _Absent(Exception):
    """A site that this graph does not have; the message is the reason."""


def find_sites(graph: Graph, hidden_size: int, num_layers: int, keeps: Keeps) -> FoundSites:
    """Return the splice points of every block in `graph` and the reasons for those it lacks.

    An op that is given what `keeps` says yes to is attention. A graph without numbered blocks of
    this width (a vision tower, a draft head) has no sites.
    """
    blocks = find_blocks(graph, num_layers)
    flow = Flow(graph, hidden_size, keeps)
    if not any(flow.is_wide(node) for block in blocks.values() for node in block.nodes):
        return FoundSites()
    points: dict[Site, SplicePoint] = {}
    missing: dict[Site, str] = {}
    for layer, block in blocks.items():
        for name in SITES:
            site = Site(name, layer)
            try:
                points[site] = _point(flow, site, block)
            except _Absent as reason:
                missing[site] = str(reason)
    return FoundSites(points, missing, tuple(blocks))


def _point(flow: Flow, site: Site, block: Block) -> SplicePoint:
    if block.fault:
        raise _Absent(block.fault)
    cuts = {PRE_ATTN: block.nodes[0], POST_BLOCK: block.nodes[-1].next}
    if site.name in cuts:
        return _boundary(flow, site, cuts[site.name])
    return _middle(flow, site, block.nodes)


def _boundary(flow: Flow, site: Site, cut: Node) -> SplicePoint:
    """Return the splice point of what is alive between two blocks."""
    alive = flow.alive_at(cut)
    for node in flow.several_at(cut):
        sizes = node.meta["example_value"].shape
        shape = ", ".join(str(size) if isinstance(size, int) else "T" for size in sizes)
        raise _Absent(f"what crosses here is not one stream: '{node.name}' is [{shape}]")
    if not alive:
        raise _Absent("no value of the stream's shape crosses here")
    if len(alive) > 2:
        names = ", ".join(node.name for node in alive)
        raise _Absent(f"{len(alive)} values of the stream's shape cross here ({names})")
    if len(alive) == 1:
        return SplicePoint(site, alive[0], None, flow.first_use(alive, cut))
    if flow.sum_of(alive[0], alive[1], cut) is None and not _returned(alive):
        raise _Absent(f"'{alive[0].name}' and '{alive[1].name}' cross here and are never summed")
    # The younger value is the last branch's output, the older one the carried residual.
    residual, hidden = alive
    return SplicePoint(site, hidden, flow.widest(residual), flow.first_use(alive, cut))


def _returned(alive: Iterable[Node]) -> bool:
    """Say whether the pair leaves the graph as it is: a pipeline stage hands it on."""
    return all(user.op == "output" for node in alive for user in list(node.users)[-1:])


def _middle(flow: Flow, site: Site, nodes: Sequence[Node]) -> SplicePoint:
    """Return the splice point before the sum that the MLP of this block reads."""
    start, inside = nodes[0], set(nodes)
    carried = flow.carried(start, nodes)
    behind = flow.behind_attention(nodes)
    if not behind:
        raise _Absent("this block has no attention")
    for node in nodes:
        if not is_sum(node) or len(parts := operands(node)) != 2:
            continue
        for branch, stream in (parts, parts[::-1]):
            if stream in carried and branch in behind and branch not in carried:
                if not reads(flow, node, inside):
                    raise _Absent("its attention and its MLP read the same input, side by side")
                return _before_sum(flow, site, (branch, stream), (start, node))
    raise _Absent("no sum of the carried stream with the attention's output was found")


def _before_sum(
    flow: Flow, site: Site, parts: tuple[Node, Node], span: tuple[Node, Node]
) -> SplicePoint:
    """Return the point before the branch's first cast on its way into the sum that ends a span.

    The sum may be taken in fp32; the branch is taken where it still has the stream's dtype.
    """
    start, total = span
    branches, streams = flow.chain(parts[0]), flow.chain(parts[1])
    dtype = flow.alive_at(start)[0].meta["example_value"].dtype
    hidden = [node for node in branches if node.meta["example_value"].dtype == dtype][-1:]
    if not hidden:
        raise _Absent(f"the attention's output '{branches[-1].name}' has another dtype")
    readers = flow.readers(hidden[0], _taken(flow, hidden[0], branches, total))
    onward = [user for user in readers if user in branches or flow.is_view(user, hidden[0])]
    if any(user not in onward and not is_sum(user) for user in readers):
        raise _Absent(f"the attention's output '{hidden[0].name}' is read outside the stream too")
    residual, before = streams[-1], readers[0]
    late = flow.order[residual] >= flow.order[before]
    if late or flow.is_written_between(residual, before, total):
        raise _Absent("the carried stream is not ready where the attention's output is")
    return SplicePoint(site, hidden[0], residual, before)


def _taken(flow: Flow, hidden: Node, branches: Sequence[Node], total: Node) -> Node:
    """Return the node that takes a branch out of its memory: the sum, or a cast on the way."""
    nearest = next(i for i, node in enumerate(branches) if node in flow.memory(hidden))
    return branches[nearest - 1] if nearest else total
