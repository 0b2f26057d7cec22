"""Edits that change nothing, whatever they meet: one of their factors is 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interv.passes.graph import ops
from interv.passes.graph.ir import Node, Target

# Where the factor stands that an edit has no effect without, and what it is called.
_FACTORS: Mapping[Target, tuple[int, str]] = {
    ops.steer: (2, "scale"),
    ops.steer_keeping_norm: (2, "scale"),
    ops.steer_by_norm: (2, "scale"),
    ops.steer_by_norm_keeping_norm: (2, "scale"),
    ops.low_rank: (2, "scale"),
    ops.linear: (2, "scale"),
    **dict.fromkeys(ops.ABLATIONS, (2, "strength")),
    ops.exchange: (3, "strength"),
    ops.replace: (3, "strength"),
    ops.cap: (4, "strength"),
    ops.rotate: (5, "strength"),
}


def no_effect(node: Node) -> str | None:
    """Say which factor of an edit is 0, None for an edit that can change the stream."""
    target: Any = node.target
    place, name = _FACTORS.get(target, (0, ""))
    return f"{name} 0" if name and node.args[place] == 0 else None
