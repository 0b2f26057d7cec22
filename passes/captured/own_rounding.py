"""Give each update its own rounding of the stream, in a graph that vLLM's passes have lowered.

    before                                           after
    %r = convert_element_type(%sum, bfloat16)        %r = convert_element_type(%sum, bfloat16)
    update(%x, %r, …)                                %q = convert_element_type(%sum, bfloat16)
    %n = convert_element_type(%r, float32)           update(%x, %q, …)
    …                                                %n = convert_element_type(%r, float32)

Inductor keeps the sum itself between two norms as long as nobody asks for the rounded value. The
opaque op asks for it, and with one value for both the next norm would read it too: the last bits
of answers that no edit touched would change.

*Needs* what a post-grad pass gets: calls of `update` inside `auto_functionalized`.
*Keeps* every value. *Refuses* nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch.fx import Graph, Node

_ROUND = torch.ops.prims.convert_element_type.default


def own_rounding(graph: Graph, updates: Collection[Any]) -> int:
    """Change the graph, and return how many calls of `updates` got a rounding of their own."""
    done = 0
    for node in list(graph.nodes):
        if node.op != "call_function" or not node.args or node.args[0] not in updates:
            continue
        residual = node.kwargs.get("residual")
        if not isinstance(residual, Node) or residual.target is not _ROUND:
            continue
        if len(residual.users) > 1:
            with graph.inserting_before(node):
                own = graph.call_function(_ROUND, residual.args, residual.kwargs)
            own.meta = dict(residual.meta)
            node.update_kwarg("residual", own)
            done += 1
    return done
