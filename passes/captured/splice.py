"""Insert the updates of a bundle's sites into a captured graph.

    before                                        after
    %x = to(%mlp_out, float32)                    update(%mlp_out, %residual, "post_block[3]")
    %r = to(%residual, float32)                   %x = to(%mlp_out, float32)
    %h = add(%x, %r)                              …

*Needs* the points of `find_sites`. *Keeps* every other node and its order. *Refuses* nothing:
what cannot be spliced was refused before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import Graph, Node

from interv.passes.captured.dataflow import is_identity
from interv.passes.captured.find_sites import SplicePoint

# Where a call of an update keeps the name of its site, in `node.meta`.
SITE = "interv_site"


@dataclass(frozen=True, slots=True)
class UpdateOps:
    """The two forms of an update, as calls that a graph may hold; both write `hidden` in place.

    `by_site(hidden, residual, site)` has the site as a text, `by_block(hidden, residual, block,
    kind)` takes an input of the graph that names a layer of its block; None where there is none.
    """

    by_site: Any
    by_block: Any = None

    @property
    def all(self) -> tuple[Any, ...]:
        """Return the forms that there are."""
        return tuple(one for one in (self.by_site, self.by_block) if one is not None)


def splice(
    graph: Graph,
    points: Sequence[SplicePoint],
    update: UpdateOps,
    names: Mapping[int, Node] | None = None,
) -> None:
    """Insert an update at each point, in the order given.

    `names` are inputs that name a block, by its number; a site of another is told by a text.
    Points come in the order of a forward pass, so that the
    edit of `post_block[L-1]` stands before the one of `pre_attn[L]`.
    """
    own: dict[Node, Node] = {}
    for point in points:
        same = _same(point.hidden)
        hidden = own.get(point.hidden, point.hidden)
        if same[-1].op == "placeholder" and point.hidden not in own:
            hidden = _copy(graph, point)
        # A later site may name what the stream was cast or copied from: it means the edited value.
        own |= dict.fromkeys(same, hidden)
        residual = own.get(point.residual, point.residual) if point.residual else None
        call: Any = update.by_site
        where: tuple[Any, ...] = (str(point.site),)
        name = (names or {}).get(point.site.layer)
        if name is not None and update.by_block is not None:
            call, where = update.by_block, (name, point.site.name)
        with graph.inserting_before(point.before):
            node = graph.call_function(call, (hidden, residual, *where))
        node.meta[SITE] = str(point.site)
        node.meta["nn_module_stack"] = point.before.meta.get("nn_module_stack")
        node.meta["example_value"] = None


def _same(node: Node) -> list[Node]:
    """Return a value and what it was cast, copied or viewed from, back to where it was made."""
    out = [node]
    while is_identity(out[-1]) and isinstance(source := out[-1].args[0], Node):
        out.append(source)
    return out


def _copy(graph: Graph, point: SplicePoint) -> Node:
    """Give the graph a tensor of its own where the stream is one of its inputs."""
    with graph.inserting_before(point.before):
        copy = graph.call_method("clone", (point.hidden,))
    copy.meta = dict(point.hidden.meta)
    point.hidden.replace_all_uses_with(copy, delete_user_cb=lambda user: copy < user)
    return copy
