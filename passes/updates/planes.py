"""Planes that rotations turn in: spanned by two directions, as long as these differ."""

from __future__ import annotations

from typing import Any

from interv.document.sites import Site
from interv.document.wording import sites_text
from interv.errors import IntervError
from interv.passes.graph.context import Context
from interv.passes.graph.directions import Constant, across
from interv.passes.graph.ir import Graph, Node, chains, is_op, origins
from interv.passes.graph.ops import rotate

# The sine of the least angle between two directions, less than a tenth of a degree. Below it what
# is left of one across the other is noise of the files that they came from.
LEAST = 1e-3


def flat_planes(graph: Graph, ctx: Context) -> list[IntervError]:
    """Make an E870 for each rotation whose directions are nearly parallel, with all its sites."""
    found: dict[int, tuple[Node, float, list[Site]]] = {}
    for chain in chains(graph):
        for edit in chain.edits:
            if is_op(edit, rotate) and (share := second(edit)[1]) < LEAST:
                key = origins(edit)[0].order
                found.setdefault(key, (edit, share, []))[2].append(chain.site)
    return [_error(*found[key], ctx) for key in sorted(found)]


def second(edit: Node) -> tuple[Constant, float]:
    """Return the second direction of a rotation's plane, across the first, and its share."""
    nodes: list[Any] = list(edit.args[1:3])
    u, w = (node.args[0] for node in nodes)
    row, share = across(u.array, w.array)
    return Constant(f"{w} ⊥ {u}", row), share


def _error(edit: Node, share: float, sites: list[Site], ctx: Context) -> IntervError:
    nodes: list[Any] = list(edit.args[1:3])
    u, w = (str(node.args[0]).removeprefix("û ") for node in nodes)
    origin = origins(edit)[0]
    return IntervError(
        "E870",
        f"'{u}' and '{w}' span no plane to rotate in, at {sites_text(sites)}",
        origin.by or origin.span,
        "nearly parallel to the first",
        notes=[
            f"the sine of the angle between them is {share:.3g}, it has to be {LEAST:g} or more"
        ],
        helps=["name a second direction that differs from the first, or its opposite"],
    )
