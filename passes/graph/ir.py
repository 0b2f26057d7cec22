"""The intermediate graph: how it is made, run, checked and printed.

A program is one `torch.fx.Graph` over the ops of `ops.py`, with two inputs (`streams`,
a mapping from site to stream, and `tokens`) and the edited streams as its output. It is never
compiled: `execute` interprets it, which is the reference for everything that is made from it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import fx

from interv.document.sites import Site
from interv.document.spec import Capture
from interv.errors import Span
from interv.passes.graph.canonical import probe, update
from interv.passes.graph.ops import EDITS, Streams, combine, decay, emit, gate, read, write
from interv.passes.graph.selector_masks import Tokens, select

Node: TypeAlias = fx.Node
Graph: TypeAlias = fx.Graph
Target: TypeAlias = Callable[..., Any]
# The captured rows `[n, H]` of a statement, by its place in the program, at each of its sites.
Taken: TypeAlias = dict[int, dict[Any, Any]]


@dataclass(frozen=True, slots=True)
class Origin:
    """The statement that a node comes from."""

    where: str  # "calm.interv:6"
    span: Span | None = None
    order: int = 0  # its place among the statements of the program
    at: Span | None = None  # of its site
    vector: Span | None = None  # of its vector or adapter
    by: Span | None = None  # of the vector that takes the place of another, or is turned towards
    probe: Span | None = None  # of its gate's vector
    probe_at: Span | None = None  # of its gate's site


def origins(node: Node) -> tuple[Origin, ...]:
    """Return the statements that a node comes from, in program order."""
    return tuple(node.meta.get("origins", ()))


def merge_origins(*nodes: Node) -> tuple[Origin, ...]:
    """Return the statements that several nodes come from, each once, in program order."""
    found = {origin: None for node in nodes for origin in origins(node)}
    return tuple(sorted(found, key=lambda origin: origin.order))


def call(
    graph: Graph, target: Target, *args: Any, origins: tuple[Origin, ...] = (), **meta: Any
) -> Node:
    """Append an op to a graph at its insertion point, with its provenance."""
    node = graph.call_function(target, args)
    node.meta.update(meta, origins=origins)
    return node


def copied(graph: Graph) -> Graph:
    """Return a copy of a graph to edit, so that the one before stays to be explained."""
    return copy.deepcopy(graph)


def tidy(graph: Graph) -> Graph:
    """Drop the nodes that nothing uses, check the graph's own invariants, and return it."""
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    graph.lint()
    return graph


def ops_of(graph: Graph) -> tuple[Node, ...]:
    """Return the ops of a graph in order, inputs and output left out."""
    return tuple(node for node in graph.nodes if node.op == "call_function")


def is_op(node: object, *targets: Target) -> bool:
    """Say whether a node is a call of one of these ops."""
    return isinstance(node, Node) and node.op == "call_function" and node.target in targets


def op_name(node: Node) -> str:
    """Return the name of a node's op."""
    return str(getattr(node.target, "__name__", node.target))


def statement_name(node: Node) -> str:
    """Return the word of the statement that an edit comes from."""
    name = op_name(node)
    return _STATEMENTS.get(name, name)


_STATEMENTS = {
    "steer_keeping_norm": "steer",
    "steer_by_norm": "steer",
    "steer_by_norm_keeping_norm": "steer",
    "ablate_keeping_norm": "ablate",
    "ablate_over": "ablate",
    "ablate_over_keeping_norm": "ablate",
    "exchange": "replace",
    "low_rank": "apply",
    "linear": "apply",
}


def input_node(graph: Graph, name: str) -> Node:
    """Return the input of that name."""
    found: Node = next(n for n in graph.nodes if n.op == "placeholder" and n.target == name)
    return found


def execute(graph: Graph, streams: Streams, tokens: Tokens, taken: Taken | None = None) -> Streams:
    """Run a graph, op by op, and return the edited streams: the sequential reference.

    `taken` receives the rows of every capture.
    """
    inputs: Mapping[str, object] = {"streams": streams, "tokens": tokens}
    values: dict[Node, Any] = {}
    for node in graph.nodes:
        args = fx.map_arg(node.args, lambda used: values[used])
        if node.op == "placeholder":
            values[node] = inputs[node.target]
        elif node.op == "output":
            result: Streams = args[0]
            return result
        else:
            values[node] = node.target(*args)
        if taken is not None and is_op(node, emit):
            h = read(args[0], args[1])
            taken.setdefault(origins(node)[0].order, {})[args[1]] = h[..., args[2], :]
    raise AssertionError("a graph ends in its output")


@dataclass(frozen=True, slots=True)
class Chain:
    """What one program does at one site: a read, its edits in order, a write."""

    site: Site
    read: Node
    edits: tuple[Node, ...]
    write: Node

    @property
    def together(self) -> bool:
        """Say whether the edits all read the original, instead of each other's result."""
        return is_op(self.write.args[2], combine)


def chains(graph: Graph) -> tuple[Chain, ...]:
    """Return the chains of a graph whose sites are resolved, in order."""
    found = []
    reads = {node.args[1]: node for node in ops_of(graph) if is_op(node, read)}
    for end in ops_of(graph):
        if is_op(end, write):
            site: Any = end.args[1]
            start = reads[site]
            found.append(Chain(site, start, _edits(end.args[2], start), end))
    return tuple(found)


def _edits(result: Any, start: Node) -> tuple[Node, ...]:
    if is_op(result, combine):
        return tuple(result.args[1])
    edits: list[Node] = []
    while result is not start:
        edits.append(result)
        result = result.args[0]
    return tuple(reversed(edits))


def weight_of(edit: Node) -> Node:
    """Return what weighs an edit: the select node of its tokens, their decay, or their gate."""
    assert is_op(edit, *EDITS)
    weight = edit.args[-1]
    assert isinstance(weight, Node)
    return weight


def gate_of(edit: Node) -> Node | None:
    """Return the gate of an edit, None where it has none."""
    weight = weight_of(edit)
    return weight if is_op(weight, gate) else None


def decay_of(node: Node) -> Node | None:
    """Return the decay of an edit or of a gate, None where it has none."""
    while not is_op(node, select, decay):
        last = node.args[-1]
        assert isinstance(last, Node)
        node = last
    return node if is_op(node, decay) else None


def rate_of(node: Node) -> Any:
    """Return the rate at which an edit or a gate decays, 1 where it does not."""
    found = decay_of(node)
    return 1.0 if found is None else found.args[1]


def mask_of(node: Node) -> Node:
    """Return the select node of an edit, a gate or a weight."""
    while not is_op(node, select):
        if is_op(node, probe):
            args: Any = node.args
            node = args[2][args[4]]
        else:
            last = node.args[-1]
            assert isinstance(last, Node)
            node = last
    return node


def selector_of(node: Node) -> Any:
    """Return the selector of an edit, a gate or a weight."""
    return mask_of(node).args[1]


def capture_of(node: Node) -> Capture:
    """Return the statement of an emit node."""
    assert is_op(node, emit)
    found = node.args[3]
    assert isinstance(found, Capture)
    return found


def edit_count(graph: Graph) -> int:
    """Return how many edits of a stream a graph holds, the columns of updates included."""
    total = 0
    for node in ops_of(graph):
        if is_op(node, update):
            columns: Any = node.args[3]
            total += len(columns)
        total += is_op(node, *EDITS)
    return total


def names(graph: Graph) -> dict[Node, str]:
    """Return short names for a graph's nodes: `%0`, `%1`, … in order, inputs by their own."""
    named: dict[Node, str] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            named[node] = str(node.target)
        elif node.op == "call_function":
            named[node] = f"%{len(named) - 2}"
    return named
