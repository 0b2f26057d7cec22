"""All edits of one site become one rank-K update: one read of the stream and one write.

    before  %3 = steer(%0, v, 1.5, %2)   %6 = cap(%3, u, -1, 2.5, 1, %5)
    after   %4 = update(%0, [v, u], [%2, %3], [1.5·b0, (clamp(p, -1, 2.5) − p)·b1 seeing 0])

A gate is a column that adds nothing. Where it weighs an edit of a later site, a `probe` of the
update stands for its weight. A full linear map is a column that names it: a matmul of its own,
before all else at its site.

Needs: constants. Keeps: what every edit and gate reads, by the Gram of the directions: column j
reads what the columns that it sees wrote, which are those of earlier edits that can apply to the
same token, or none where all read the original; edits that scale the stream come last then.
Refuses: what would have to come before a full linear map (`interv.passes.updates.linear_first`);
any other sequence of edits fuses.
"""

from __future__ import annotations

from typing import Any

from interv.errors import raise_all
from interv.passes.graph.canonical import probe, update
from interv.passes.graph.context import Context
from interv.passes.graph.directions import Map
from interv.passes.graph.ir import Chain, Graph, Node, call, chains, copied, is_op, tidy
from interv.passes.graph.ops import gate, linear, replace, steer_keeping_norm
from interv.passes.placing.cost import Machine, map_cost
from interv.passes.updates.columns_of_site import FusedSite
from interv.passes.updates.linear_first import misplaced


def fuse_updates(graph: Graph, ctx: Context) -> Graph:
    """Replace the edits of every site by one update; raise E417 for a map that is not first."""
    new = copied(graph)
    raise_all(misplaced(chains(new), ctx))
    probes: dict[Node, Node] = {}
    maps: dict[Node, Map] = {}
    for chain in chains(new):
        site = FusedSite(new, chain, ctx, probes, maps)
        values, edits = (chain.read, *chain.edits), _in_turn(chain)
        for value, edit in zip(values, (*edits, None), strict=True):
            for reader in [user for user in value.users if is_op(user, gate)]:
                site.add_gate(reader)
            if edit is not None:
                site.add_edit(edit)
        with new.inserting_before(chain.write):
            node = _update(new, chain, site)
            for reader in site.gates:
                if any(user not in chain.edits for user in reader.users):
                    probes[reader] = _probe(new, node, site.gates[reader])
        chain.write.args = (*chain.write.args[:2], node)
        ctx.remark(node, _said(chain, site))
        for edit in chain.edits:
            if is_op(edit, linear):
                ctx.remark(edit, _apart(ctx.model.hidden_size), done=False)
    return tidy(new)


def _in_turn(chain: Chain) -> list[Node]:
    """Return a site's edits in the order of their columns.

    What all read the original is the same in any order: edits that scale the stream come last, so
    that behind another program the others read what that one added, unscaled.
    """
    if not chain.together:
        return list(chain.edits)
    return sorted(chain.edits, key=lambda edit: is_op(edit, steer_keeping_norm, replace))


def _apart(hidden_size: int) -> str:
    one = map_cost(1, hidden_size, Machine())
    return (
        "is not fused: a full linear map is a matmul of its own, before the update of its site:"
        f" {one.weight_bytes / 1e6:.3g} MB of weights a step, {one.flops / 1e6:.3g} Mflop a token"
    )


def _update(graph: Graph, chain: Chain, site: FusedSite) -> Node:
    every = sorted({o for one in site.where for o in one}, key=lambda origin: origin.order)
    args = (tuple(site.rows), tuple(site.masks), tuple(site.columns))
    where = tuple(site.where)
    return call(graph, update, chain.read, *args, origins=tuple(every), columns=where)


def _probe(graph: Graph, node: Node, column: int) -> Node:
    args: Any = node.args
    return call(graph, probe, *args, column, origins=node.meta["columns"][column])


def _said(chain: Chain, site: FusedSite) -> str:
    edits, gates = len(chain.edits), len(site.gates)
    if edits == 0:
        return "a gate of a later site is read here; nothing is written"
    more = f" with {gates} gate{'s' if gates > 1 else ''}" if gates else ""
    if edits == 1:
        return f"1 edit of a site becomes an update{more}"
    return f"{edits} edits of a site become one update{more}: one read, one write"
