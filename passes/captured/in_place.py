"""What one node of a captured graph does with its arguments: write, add, look at a shape."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

_SUM_FUNCTIONS = frozenset({operator.add, operator.iadd, torch.add})
_SUM_METHODS = frozenset({"add", "add_"})
_AUGMENTED = "iadd iand iconcat ifloordiv ilshift imatmul imod imul ior ipow irshift isub itruediv"
_NAMES = frozenset([*_AUGMENTED.split(), "ixor", "setitem"])
_FUNCTIONS = frozenset(getattr(operator, name) for name in _NAMES)
# Those that put other values in, whatever was there.
_OVERWRITING = frozenset({operator.setitem, "__setitem__", "copy_", "fill_", "zero_"})
_SHAPE_READS = frozenset({"size", "dim", "stride", "numel"})


def is_fused_sum(node: Node) -> bool:
    """Say whether a node is one op that adds the residual and normalises the sum."""
    name = str(node.target)
    return node.op == "call_function" and "fused_add" in name and "norm" in name


def is_sum(node: Node) -> bool:
    """Say whether a node adds two tensors, each as it is."""
    if is_fused_sum(node):
        return True
    plain = node.op == "call_function" and node.target in _SUM_FUNCTIONS
    method = node.op == "call_method" and node.target in _SUM_METHODS
    return (plain or method) and len(operands(node)) == 2 and not node.kwargs


def operands(node: Node) -> tuple[Node, ...]:
    """Return the two tensors that a sum adds (fewer where it adds a constant)."""
    return tuple(arg for arg in node.args[:2] if isinstance(arg, Node))


def reads_shape(node: Node) -> bool:
    """Say whether a node looks at nothing but a tensor's shape."""
    return node.op == "call_method" and node.target in _SHAPE_READS


def written(node: Node) -> tuple[Node, ...]:
    """Return the arguments that a node writes into.

    An op says it in its schema, a function or a method of torch by its name or by `out`. Of an op
    that runs another graph or a kernel nothing is known, so it may write all it is given.
    """
    if node.op == "call_method":
        return tuple(_nodes(node.args[:1])) if _is_in_place(str(node.target)) else ()
    if node.op != "call_function":
        return ()
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return tuple(node.all_input_nodes)
    if (schema := schema_of(node)) is not None:
        pairs = zip(schema.arguments, node.args, strict=False)
        named = ((a, node.kwargs.get(a.name)) for a in schema.arguments if a.name in node.kwargs)
        return tuple(
            one for a, value in (*pairs, *named) if _is_written(a) for one in _nodes(value)
        )
    in_place = node.target in _FUNCTIONS or node.kwargs.get("inplace") is True
    if in_place or _is_in_place(getattr(node.target, "__name__", "")):
        return tuple(_nodes((*node.args[:1], node.kwargs.get("input"))))
    return tuple(_nodes(node.kwargs.get("out")))


def updates(node: Node) -> bool:
    """Say whether a node writes a new value that it computes from the old one."""
    named = node.op == "call_method" or schema_of(node) is None
    return named and node.target not in _OVERWRITING and bool(written(node))


def schema_of(node: Node) -> Any:
    """Return the schema of an op that a node calls; None for any other function."""
    target = node.target
    if isinstance(target, torch._ops.OpOverloadPacket):
        target = getattr(target, target.overloads()[0])
    return getattr(target, "_schema", None)


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _is_in_place(name: str) -> bool:
    """Say whether torch's names make a function one that writes its first argument."""
    return name[2:-2] in _NAMES if name.startswith("__") else name.endswith("_")


def _nodes(value: Any) -> Iterator[Node]:
    """Yield the nodes in an argument, however nested."""
    if isinstance(value, Node):
        yield value
    elif isinstance(value, Mapping):
        yield from _nodes(tuple(value.values()))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for one in value:
            yield from _nodes(one)
