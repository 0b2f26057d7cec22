"""Graphs as text, one op a line: `%3: stream = steer(%0, calm[12], 1.5, %2)  calm.interv:6`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from interv.document.selectors import selector_text
from interv.document.spec import Capture, Node as SpecNode
from interv.document.wording import brief, layer_text, number_text
from interv.passes.graph.canonical import opening_of
from interv.passes.graph.column import Form, Kind, Mode
from interv.passes.graph.ir import Graph, Node, names, op_name, ops_of, origins
from interv.passes.graph.ops import OPS


def show(graph: Graph, remarks: Mapping[Node, str] | None = None) -> str:
    """Print a graph, with a remark under the ops that have one."""
    named = names(graph)
    lines = []
    for node in ops_of(graph):
        lines.append(show_op(node, named))
        if remarks and node in remarks:
            lines.append(f"    ^ {remarks[node]}")
    return "\n".join(lines)


def show_op(node: Node, named: Mapping[Node, str]) -> str:
    """Print one op with the names given, its type, and where it comes from."""
    kind = OPS[op_name(node)].result if op_name(node) in OPS else "?"
    args = ", ".join(show_arg(arg, named) for arg in node.args)
    where = places(origin.where for origin in origins(node))
    text = f"{named[node]}: {kind} = {op_name(node)}({args})"
    return f"{text}  # {where}" if where else text


def show_arg(arg: Any, named: Mapping[Node, str]) -> str:
    """Print an argument of an op."""
    if isinstance(arg, Node):
        return named[arg]
    if isinstance(arg, float):
        return number_text(arg)
    if isinstance(arg, Capture):
        return f"to {arg.to}, {'after' if arg.after else 'before'} the edits"
    if isinstance(arg, SpecNode):
        return brief(selector_text(arg))  # type: ignore[arg-type]
    if isinstance(arg, Form):
        return f"g{arg.gate}·({form_text(arg)})" if arg.gate >= 0 else form_text(arg)
    if isinstance(arg, (tuple, list)):
        return f"[{', '.join(show_arg(one, named) for one in arg)}]"
    return str(arg)


def form_text(form: Form, p: str = "p") -> str:
    """Print what a column does as a formula of what it reads."""
    match form.kind:
        case Kind.GATE:
            if form.mode & Mode.DECAY:
                return f"{float(f'{2**form.alpha:.12g}'):g}^i"
            return opening_of(form).formula(p)
        case Kind.KEEP_NORM:
            added = replace(form, kind=Kind.ADD)
            return f"{form_text(added, p)}, then scaled to the norm before"
        case Kind.REPLACE:
            return f"{_gain(form.strength)}{number_text(form.alpha)}, in place of what was there"
        case Kind.ROTATE:
            adaptive = form.block and form.low > -math.inf
            where = f" where {p} > {number_text(form.low)}" if adaptive else ""
            turned, gain = f"{form.alpha:.6g}·r − {p}", _gain(form.strength)
            return f"{gain}({turned}){where}" if gain else f"{turned}{where}"
        case Kind.LINEAR:
            return f"{_gain(form.alpha)}({form.map} h + b − h)"
    if form.beta:
        gain = _gain(form.beta)
        return f"{gain}({p} {_signed(form.alpha / form.beta)})" if form.alpha else f"{gain}{p}"
    if form.a < 0:
        share = "·‖y‖" if form.mode & Mode.SHARE else ""
        return f"{number_text(form.alpha)}{share}"
    gain = _gain(form.strength)
    if form.low == form.high == 0:
        return f"−{gain}{p}"
    moved = f"{_bounded(form, p)} − {p}"
    return f"{gain}({moved})" if gain else moved


def _gain(factor: float) -> str:
    return "" if factor == 1 else f"{number_text(factor)}·"


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'} {number_text(abs(value))}"


def _bounded(form: Form, p: str) -> str:
    if math.isinf(form.low):
        return f"min({p}, {number_text(form.high)})"
    if math.isinf(form.high):
        return f"max({p}, {number_text(form.low)})"
    return f"clamp({p}, {number_text(form.low)}, {number_text(form.high)})"


def places(where: Iterable[str]) -> str:
    """Print source lines shortly, those of one file together: `calm.interv:6..8, 11`."""
    files: dict[str, list[int]] = {}
    for one in dict.fromkeys(where):
        name, _, line = one.rpartition(":")
        if not line.isdigit():
            # A document without text: `<spec>:programs.0.statements.2` is its statement 2.
            name, line = f"{name} statement", line.rpartition(".")[2]
        if line.isdigit():
            files.setdefault(PurePath(name).name, []).append(int(line))
        else:
            files.setdefault(one, [])
    return ", ".join(
        f"{name}:{layer_text(found)}" if found else name for name, found in files.items()
    )
