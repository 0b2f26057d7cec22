"""Which block a node of a graph belongs to, by its stack of modules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.fx import Graph

from interv.passes.captured.numbered_blocks import find_blocks

# The calls of modules that a node is within, the outermost first: their keys and paths.
Stack = Sequence[tuple[str, str]]


def graph_of(stacks: Sequence[Stack]) -> Graph:
    """Make a graph of one node for each stack, named by its place."""
    graph = Graph()
    last = graph.placeholder("h")
    for place, stack in enumerate(stacks):
        last = graph.create_node("call_function", torch.tanh, (last,), name=f"at_{place}")
        last.meta["nn_module_stack"] = {
            key: (f"L['self'].{path}", nn.Module) for key, path in stack
        }
    return graph


def blocks_of(stacks: Sequence[Stack]) -> dict[int, list[str]]:
    found = find_blocks(graph_of(stacks), num_layers=4)
    return {layer: [node.name for node in block.nodes] for layer, block in found.items()}


def faults_of(stacks: Sequence[Stack]) -> dict[int, str]:
    found = find_blocks(graph_of(stacks), num_layers=4)
    return {layer: block.fault for layer, block in found.items() if block.fault}


def test_a_node_belongs_to_the_outermost_numbered_module() -> None:
    stacks = [
        [("a", "model"), ("b", "model.layers.0"), ("c", "model.layers.0.attn")],
        # A module that blocks share bears the number of the first that has it.
        [("a", "model"), ("d", "model.layers.1"), ("c@1", "model.layers.0.attn")],
        [("a", "model"), ("d", "model.layers.1"), ("e", "model.layers.1.experts.3")],
        [("a", "model")],
    ]
    assert blocks_of(stacks) == {0: ["at_0"], 1: ["at_1", "at_2"]}
    assert faults_of(stacks) == {}


def test_numbered_modules_beside_the_blocks_are_none() -> None:
    layers = [[("a", f"layers.{i}")] for i in (0, 0, 1, 1)]
    assert blocks_of([[("b", "gates.2")], *layers, [("b", "gates.3")]]) == {
        0: ["at_1", "at_2"],
        1: ["at_3", "at_4"],
    }
    # More of them than the model has blocks.
    assert blocks_of([[("a", "experts.4")], [("a", "experts.5")]]) == {}


def test_a_block_that_runs_again_is_at_fault_whatever_ran_between() -> None:
    twice = "runs 2 times in a pass, so it is no one place"
    together = [[("a", "layers.0")], [("a@1", "layers.0")], [("b", "layers.1")]]
    assert faults_of(together) == {0: f"block 0 {twice}"}
    apart = [[("a", "layers.0")], [("b", "layers.1")], [("a@1", "layers.0")]]
    assert faults_of(apart) == {
        0: f"block 0 {twice}",
        1: "block 1 runs before and after something of block 0",
    }
    # Two calls of what lies within it are one run of a block.
    within = [
        [("a", "layers.0"), ("b", "layers.0.norm")],
        [("a", "layers.0"), ("b@1", "layers.0.norm")],
    ]
    assert faults_of(within) == {}
