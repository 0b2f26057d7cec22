"""The numbered blocks of a captured graph, and which of them are no stretch of it.

A node belongs to the outermost numbered entry of its stack of modules: a block that several others
share bears the number of one of them, wherever it runs.

*Needs* `node.meta["nn_module_stack"]`, whose keys tell the calls of one module apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch.fx import Graph, Node

_NUMBERED = re.compile(r"^(.*?)\.(\d+)(\..*)?$")


@dataclass(slots=True)
class Block:
    """The nodes of a numbered module, in order; why it is no one place, where it is not."""

    nodes: list[Node] = field(default_factory=list)
    calls: set[str] = field(default_factory=set)
    fault: str = ""


def find_blocks(graph: Graph, num_layers: int) -> dict[int, Block]:
    """Return the blocks by number: of all numbered modules, those that hold the most of a graph."""
    by_prefix: dict[str, dict[int, Block]] = {}
    for node in graph.nodes:
        if node.op == "placeholder" or (entry := _outermost(node)) is None:
            continue
        call, match = entry
        block = by_prefix.setdefault(match[1], {}).setdefault(int(match[2]), Block())
        block.nodes.append(node)
        if match[3] is None:
            block.calls.add(call)
    usable = [blocks for blocks in by_prefix.values() if max(blocks) < num_layers]
    best = max(usable, key=lambda blocks: sum(len(b.nodes) for b in blocks.values()), default={})
    _find_faults(graph, best)
    return dict(sorted(best.items()))


def _outermost(node: Node) -> tuple[str, re.Match[str]] | None:
    stack = node.meta.get("nn_module_stack") or {}
    matches = ((str(call), _NUMBERED.match(path)) for call, (path, _) in stack.items())
    return next(((call, match) for call, match in matches if match), None)


def _find_faults(graph: Graph, blocks: dict[int, Block]) -> None:
    """Say of each block that runs more than once, or while another one does, that it does."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    spans = sorted((order[b.nodes[0]], order[b.nodes[-1]], layer) for layer, b in blocks.items())
    for layer, other in _overlapping(spans):
        blocks[layer].fault = f"block {layer} runs before and after something of block {other}"
    for layer, block in blocks.items():
        if len(block.calls) > 1:
            times = len(block.calls)
            block.fault = f"block {layer} runs {times} times in a pass, so it is no one place"


def _overlapping(spans: list[tuple[int, int, int]]) -> Iterable[tuple[int, int]]:
    """Yield each block whose span `(first, last, layer)` meets another's, with that one."""
    for i, (_, last, layer) in enumerate(spans):
        for first, _, other in spans[i + 1 :]:
            if first > last:
                break
            yield layer, other
            yield other, layer
