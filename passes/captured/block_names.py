"""The inputs of a captured graph that name a layer, by the number of its block.

vLLM hands the names of layers to its own ops as objects that Dynamo lifts into inputs, so that
blocks that differ by their names alone are compiled once. An update that takes one of them, and
the kind of its site, is shared as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import Graph, Node

# Returns the name that an argument is, None where it is something else.
Names = Callable[[Any], str | None]


def block_names(graph: Graph, name_of: Names) -> dict[int, Node]:
    """Return, by block, the first input of a graph that names a layer of it."""
    found: dict[int, Node] = {}
    for node in graph.nodes:
        if node.op != "placeholder":
            continue
        name = name_of(node.meta.get("example_value"))
        if name is not None and (number := number_in(name)) is not None:
            found.setdefault(number, node)
    return found


def number_in(name: str) -> int | None:
    """Return the number of the block that a layer's name says, as `model.layers.3.self_attn`."""
    return next((int(word) for word in name.split(".") if word.isdecimal()), None)
