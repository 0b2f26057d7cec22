"""Dataflow over a captured graph: what carries the stream unchanged, what depends on attention.

Graphs of models write into preallocated tensors, so a value is not always made by its producer:
a call that writes an argument makes that argument depend on everything it read.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch.fx import Graph, Node

_CASTS = {"to", "float", "half", "bfloat16", "type", "type_as"}
_VIEWS = {"contiguous", "clone", "view", "reshape", "squeeze", "unsqueeze", "flatten", "detach"}
_IDENTITY_METHODS = frozenset(_CASTS | _VIEWS)
_SUM_FUNCTIONS = frozenset({operator.add, operator.iadd, torch.add})
_SUM_METHODS = frozenset({"add", "add_"})


def is_identity(node: Node) -> bool:
    """Say whether a node hands its first argument on, up to dtype and leading shape."""
    return node.op == "call_method" and node.target in _IDENTITY_METHODS


def is_fused_sum(node: Node) -> bool:
    """Say whether a node is one op that adds the residual and normalises the sum."""
    name = str(node.target)
    return node.op == "call_function" and "fused_add" in name and "norm" in name


def is_sum(node: Node) -> bool:
    """Say whether a node adds two tensors."""
    if is_fused_sum(node):
        return True
    plain = node.op == "call_function" and node.target in _SUM_FUNCTIONS
    method = node.op == "call_method" and node.target in _SUM_METHODS
    return (plain or method) and len(operands(node)) == 2


def operands(node: Node) -> tuple[Node, ...]:
    """Return the two tensors that a sum adds (fewer where it adds a constant)."""
    return tuple(arg for arg in node.args[:2] if isinstance(arg, Node))


def written(node: Node) -> tuple[Node, ...]:
    """Return the arguments that a call writes into, by its schema."""
    target = node.target
    if isinstance(target, torch._ops.OpOverloadPacket):
        target = getattr(target, target.overloads()[0])
    schema = getattr(target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return ()
    pairs = zip(schema.arguments, node.args, strict=False)
    named = ((a, node.kwargs.get(a.name)) for a in schema.arguments if a.name in node.kwargs)
    return tuple(
        value
        for argument, value in (*pairs, *named)
        if isinstance(value, Node) and argument.alias_info and argument.alias_info.is_write
    )


def reads(flow: Flow, total: Node, inside: set[Node]) -> bool:
    """Say whether something inside the block computes on a sum, beyond carrying it on."""
    if is_fused_sum(total):
        return True
    seen = [total]
    for node in seen:
        for user in node.users:
            if user not in inside:
                continue
            if is_identity(user):
                seen.append(user)
            elif not is_sum(user):
                return True
    return any(
        not is_sum(user) and not is_identity(user)
        for node in seen
        for user in flow.readers(node)
        if user in inside
    )


class Flow:
    """Orders, aliases and dependencies of one graph; computed once, never changed."""

    def __init__(self, graph: Graph, hidden_size: int) -> None:
        self.nodes: tuple[Node, ...] = tuple(graph.nodes)
        self.order = {node: index for index, node in enumerate(self.nodes)}
        self.hidden_size = hidden_size
        self._overwritten = {v for n in self.nodes if is_fused_sum(n) for v in written(n)}

    def is_stream_shaped(self, node: Node) -> bool:
        """Say whether a node's value is `[…, T, H]` with a symbolic number of tokens."""
        value = node.meta.get("example_value")
        if not isinstance(value, torch.Tensor) or value.ndim < 2:
            return False
        tokens, width = value.shape[-2:]
        return width == self.hidden_size and not isinstance(tokens, int)

    def alive_at(self, cut: Node) -> tuple[Node, ...]:
        """Return the stream-shaped values made before `cut` and used at or after it, in order."""
        at = self.order[cut]
        return tuple(
            node
            for node in self.nodes[:at]
            if self.is_stream_shaped(node) and any(self.order[u] >= at for u in node.users)
        )

    def first_use(self, values: Sequence[Node], cut: Node) -> Node:
        """Return the first node at or after `cut` that uses one of `values`."""
        at = self.order[cut]
        uses = [self.order[u] for value in values for u in value.users if self.order[u] >= at]
        return self.nodes[min(uses)]

    def chain(self, node: Node) -> tuple[Node, ...]:
        """Return `node` and what it hands on unchanged, back to the value that was computed.

        A copy that is overwritten later is a value of its own.
        """
        out = [node]
        while is_identity(out[-1]) and out[-1] not in self._overwritten:
            source = out[-1].args[0]
            if not isinstance(source, Node) or not self.is_stream_shaped(source):
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

    def readers(self, node: Node) -> tuple[Node, ...]:
        """Return the users that read a value as it was made, in order.

        A fused sum may take the memory of what it adds; whoever comes after it reads something
        else. Any other call that writes the value is what makes it.
        """
        out = []
        for user in sorted(node.users, key=self.order.__getitem__):
            writes = node in written(user)
            if is_fused_sum(user) or not writes:
                out.append(user)
            if is_fused_sum(user) and writes:
                break
        return tuple(out)

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
            if is_identity(node) and node.args[0] in whole:
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
            if _is_attention(node) or any(arg in behind for arg in node.all_input_nodes):
                behind.add(node)
                for target in written(node):
                    behind.update(self._aliases(target))
        return behind

    def _aliases(self, node: Node) -> set[Node]:
        """Return a value, its bases, and the views made of them."""
        out, base = {node}, node
        while base.op == "call_method" and isinstance(base.args[0], Node):
            base = base.args[0]
            out.add(base)
        return out


def _is_attention(node: Node) -> bool:
    """Say whether a node is the opaque op that reads the KV cache."""
    target = node.target
    return (
        node.op == "call_function"
        and isinstance(target, torch._ops.OpOverload | torch._ops.OpOverloadPacket)
        and "attention" in str(target)
    )
