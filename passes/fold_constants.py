"""What is known now is computed now: directions become numbers, edits without effect are marked.

    before  %1 = direction(anger, post_block[12])   %2 = unit(%1)   cap(%0, %2, -1, 2.5, 1, %3)
    after   %1 = constant(û anger[12])              cap(%0, %1, -1, 2.5, 1, %2)

Needs: resolved sites. Keeps: everything; edits with scale 0 or strength 0 are only marked, for
`drop_dead` to drop. Refuses: rotations whose two directions span no plane. Scales stay scalars of
their own, so that a new scale leaves the bank of directions as it is.
"""

from __future__ import annotations

from typing import Any

from interv.document.sites import Site
from interv.errors import raise_all
from interv.passes.graph.context import Context
from interv.passes.graph.directions import Constant, Row, Vector, unit_vector
from interv.passes.graph.ir import Graph, Node, call, copied, is_op, ops_of, origins, tidy
from interv.passes.graph.no_effect import no_effect
from interv.passes.graph.ops import constant, direction, unit
from interv.passes.updates.planes import flat_planes


def fold_constants(graph: Graph, ctx: Context) -> Graph:
    """Replace directions and unit directions by their numbers; mark what has no effect.

    Raises E870 for rotations between directions that are nearly parallel.
    """
    new = copied(graph)
    for node in ops_of(new):
        if is_op(node, unit):
            source: Any = node.args[0]
            _replace(new, node, Constant(f"û {_label(source)}", unit_vector(_row(source))))
            ctx.remark(node, "unit direction computed (float64)")
    for node in ops_of(new):
        if is_op(node, direction):
            if any(not is_op(user, unit) for user in node.users):
                ctx.remark(node, "direction taken from its vector")
            _replace(new, node, Constant(_label(node), _row(node)))
        elif (why := no_effect(node)) is not None:
            ctx.remark(node, f"{why}: has no effect")
    raise_all(flat_planes(new, ctx))
    return tidy(new)


def _row(node: Node) -> Row:
    vector: Any = node.args[0]
    site: Any = node.args[1]
    assert isinstance(vector, Vector)
    assert isinstance(site, Site)
    return vector.at(site.layer)


def _label(node: Node) -> str:
    vector: Any = node.args[0]
    site: Any = node.args[1]
    return str(vector) if vector.layers is None else f"{vector}[{site.layer}]"


def _replace(graph: Graph, node: Node, value: Constant) -> None:
    with graph.inserting_before(node):
        new = call(graph, constant, value, origins=origins(node))
    node.replace_all_uses_with(new)
