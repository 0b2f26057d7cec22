"""Dataflow over a captured graph: what carries the stream unchanged, what depends on attention.

Graphs of models write into preallocated tensors, and into views of them, so a value is not always
made by its producer: a call that writes makes everything in that memory depend on what it read.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Graph, Node

from interv.passes.captured.in_place import (
    is_fused_sum,
    is_sum,
    operands,
    reads_shape,
    updates,
    written,
)

# Given an argument of an op that is no tensor, says whether it names a layer that keeps what
# earlier tokens left: a KV cache, or the state of a recurrence.
Keeps = Callable[[Any], bool]

_CASTS = {"to", "float", "half", "bfloat16", "type", "type_as"}
_VIEWS = {"contiguous", "clone", "view", "reshape", "squeeze", "unsqueeze", "flatten", "detach"}
_IDENTITY_METHODS = frozenset(_CASTS | _VIEWS)


def is_identity(node: Node) -> bool:
    """Say whether a node hands its first argument on, up to dtype and leading shape."""
    return node.op == "call_method" and node.target in _IDENTITY_METHODS


def reads(flow: Flow, total: Node, inside: set[Node]) -> bool:
    """Say whether something inside the block computes on a sum, beyond carrying it on."""
    if is_fused_sum(total):
        return True
    seen = [total]
    for node in seen:
        for user in flow.readers(node, total.next):
            if user not in inside or user in seen:
                continue
            if is_identity(user) or flow.is_view(user, node):
                seen.append(user)
            elif not is_sum(user):
                return True
    return False


class Flow:
    """Orders, aliases and dependencies of one graph; computed once, never changed."""

    def __init__(self, graph: Graph, hidden_size: int, keeps: Keeps) -> None:
        self.nodes: tuple[Node, ...] = tuple(graph.nodes)
        self.order = {node: index for index, node in enumerate(self.nodes)}
        self.hidden_size = hidden_size
        self._keeps = keeps
        self._memory = _memories(self.nodes)
        sums = [node for node in self.nodes if is_sum(node)]
        fused = {v for n in sums if is_fused_sum(n) for v in self._written_memory(n)}
        others = {n for n in self.nodes if n not in set(sums)}
        self._spoiled = {v for n in others for v in self._written_memory(n)}
        self._overwritten = fused | self._spoiled

    def memory(self, node: Node) -> tuple[Node, ...]:
        """Return the values that lie in the memory of `node`, itself among them."""
        return self._memory.get(node, (node,))

    def _written_memory(self, node: Node) -> set[Node]:
        return {value for target in written(node) for value in self.memory(target)}

    def is_view(self, user: Node, node: Node) -> bool:
        """Say whether a user of a value only gives its memory another name."""
        return user in self.memory(node) and not self._written_memory(user)

    def is_stream_shaped(self, node: Node) -> bool:
        """Say whether a node's value is `[T, H]` with a symbolic number of tokens.

        Axes of size 1 may stand before; several streams side by side are no stream.
        """
        value = node.meta.get("example_value")
        if not isinstance(value, torch.Tensor) or value.ndim < 2:
            return False
        *outer, tokens, width = value.shape
        flat = all(isinstance(size, int) and size == 1 for size in outer)
        return flat and width == self.hidden_size and not isinstance(tokens, int)

    def is_wide(self, node: Node) -> bool:
        """Say whether a value has a number of tokens and the stream's width among its sizes."""
        value = node.meta.get("example_value")
        if not isinstance(value, torch.Tensor):
            return False
        known = [size for size in value.shape if isinstance(size, int)]
        return len(known) < value.ndim and self.hidden_size in known

    def several_at(self, cut: Node) -> tuple[Node, ...]:
        """Return what crosses a cut that holds several streams: made on the way, not an input."""
        at = self.order[cut]
        return tuple(
            node
            for node in self.nodes[:at]
            if node.op != "placeholder" and self.is_wide(node) and not self.is_stream_shaped(node)
            if any(self.order[u] >= at for u in node.users)
        )

    def alive_at(self, cut: Node) -> tuple[Node, ...]:
        """Return the stream-shaped values made before `cut` and used at or after it, in order.

        What is only returned from there on is a copy for somebody else (a draft head reads the
        stream of some layers), unless nothing is used otherwise: then it is handed on.
        """
        at = self.order[cut]
        later = {
            node: [user for user in node.users if self.order[user] >= at]
            for node in self.nodes[:at]
            if self.is_stream_shaped(node)
        }
        used = [n for n, users in later.items() if any(user.op != "output" for user in users)]
        return tuple(used or [node for node, users in later.items() if users])

    def first_use(self, values: Sequence[Node], cut: Node) -> Node:
        """Return the first node at or after `cut` that uses one of `values`."""
        at = self.order[cut]
        users = {u for value in values for one in self.memory(value) for u in one.users}
        return self.nodes[min(self.order[u] for u in users if self.order[u] >= at)]

    def chain(self, node: Node) -> tuple[Node, ...]:
        """Return `node` and what it hands on unchanged, back to the value that was computed.

        A copy that is overwritten later is a value of its own.
        """
        out = [node]
        while is_identity(out[-1]):
            source = out[-1].args[0]
            if not isinstance(source, Node) or not self.is_stream_shaped(source):
                break
            if out[-1] in self._overwritten and source not in self.memory(out[-1]):
                break
            out.append(source)
        return tuple(out)

    def widest(self, node: Node) -> Node:
        """Return the value that a carried one was rounded from.

        Inductor does not round a stream between blocks where it can keep the sum itself. An op
        that asked for the rounded value would make it round, and an edit that does nothing
        would change the last bits of every answer.
        """
        return self.chain(node)[-1]

    def readers(self, node: Node, at: Node) -> tuple[Node, ...]:
        """Return the users of a value's memory as it is when `at` runs, in order.

        Who used it before the last write made it, or had it. A sum that takes the memory for its
        result ends it: whoever comes after reads something else.
        """
        users = {user for one in self.memory(node) for user in one.users}
        out: list[Node] = []
        for user in sorted(users, key=self.order.__getitem__):
            writes = node in self._written_memory(user)
            if self.order[user] < self.order[at]:
                out = [] if writes else [*out, user]
            elif is_sum(user) or updates(user) or not writes:
                out.append(user)
                if writes:
                    break
        return tuple(user for user in out if not reads_shape(user))

    def is_written_between(self, node: Node, first: Node, last: Node) -> bool:
        """Say whether something from `first` on and before `last` writes a value's memory."""
        between = self.nodes[self.order[first] : self.order[last]]
        return any(node in self._written_memory(one) for one in between)

    def sum_of(self, left: Node, right: Node, cut: Node) -> Node | None:
        """Return the sum of two values at or after `cut`, up to casts."""
        for node in self.nodes[self.order[cut] :]:
            if is_sum(node) and len(parts := operands(node)) == 2:
                roots = {self.chain(part)[-1] for part in parts}
                if roots == {self.chain(left)[-1], self.chain(right)[-1]}:
                    return node
        return None

    def carried(self, start: Node, nodes: Sequence[Node]) -> set[Node]:
        """Return the values in a block that equal the stream as it entered."""
        alive = self.alive_at(start)
        whole: set[Node] = set(alive) if len(alive) == 1 else set()
        if len(alive) == 2 and (total := self.sum_of(alive[0], alive[1], start)) is not None:
            whole.add(total)
            if is_fused_sum(total):
                whole |= self._fused_residual(total)
        for node in nodes:
            if not is_identity(node) or node.args[0] not in whole:
                continue
            if node not in self._spoiled or node.args[0] in self.memory(node):
                whole.add(node)
        return whole

    def _fused_residual(self, total: Node) -> set[Node]:
        """Return the sum that a fused add-norm gives: its second result, or what it wrote."""
        seconds = {u for u in total.users if u.target is operator.getitem and u.args[1] == 1}
        return seconds or set(operands(total)[1:])

    def behind_attention(self, nodes: Sequence[Node]) -> set[Node]:
        """Return the values of a block that depend on its attention op."""
        behind: set[Node] = set()
        for node in nodes:
            if self.attends(node) or any(arg in behind for arg in node.all_input_nodes):
                behind.add(node)
                behind |= self._written_memory(node)
        return behind

    def attends(self, node: Node) -> bool:
        """Say whether a node is an opaque op that reads what earlier tokens left.

        Attention over a KV cache and the mixers that carry a state are told apart from all else
        by what they are given: the name of the layer that keeps it.
        """
        opaque = isinstance(node.target, torch._ops.OpOverload | torch._ops.OpOverloadPacket)
        if node.op != "call_function" or not opaque:
            return False
        given = (*node.args, *node.kwargs.values())
        return any(self._keeps(_constant(one)) for one in given)


def _constant(argument: Any) -> Any:
    """Return an argument of an op, or what stands for it where it is an input of the graph."""
    return argument.meta.get("example_value") if isinstance(argument, Node) else argument


def _memories(nodes: Sequence[Node]) -> dict[Node, tuple[Node, ...]]:
    """Return for each tensor the values that share its memory, by the storage of the traced one."""
    sharing: dict[int, list[Node]] = {}
    for node in nodes:
        if isinstance(value := node.meta.get("example_value"), torch.Tensor):
            sharing.setdefault(value.untyped_storage()._cdata, []).append(node)
    return {node: group for each in sharing.values() for group in (tuple(each),) for node in group}
