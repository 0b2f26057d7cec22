"""Graphs cut into sites, equal sites of several layers shown once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from interv.document.selectors import selector_text
from interv.document.sites import Site
from interv.document.wording import brief, layer_text
from interv.passes.graph.canonical import probe, update
from interv.passes.graph.column import Form, Kind
from interv.passes.graph.ir import (
    Graph,
    Node,
    Origin,
    capture_of,
    is_op,
    op_name,
    ops_of,
    origins,
    selector_of,
)
from interv.passes.graph.layer_ranges import Sites
from interv.passes.graph.ops import (
    OPS,
    adapter,
    constant,
    direction,
    emit,
    gate,
    linear_map,
    read,
    write,
)
from interv.passes.graph.show import form_text, show_arg

TYPES = {
    "streams": "",
    "stream": "stream    [T, H]",
    "direction": "direction [H]",
    "mask": "mask      [T]",
    "rows": "rows      [r, H]",
    "map": "map       [H, H]",
}
COLUMN = "column    [T]"


@dataclass(frozen=True, slots=True)
class Line:
    """One op: its name in the block, its type, what it is, and where it comes from."""

    name: str
    type: str
    text: str
    where: tuple[str, ...]
    inside: tuple[Line, ...] = ()  # what was fused into it


@dataclass(frozen=True, slots=True)
class Block:
    """What happens at a site, at all layers of `site` alike."""

    site: str  # "post_block[10..20]"
    lines: tuple[Line, ...]


def blocks(graph: Graph) -> tuple[Block, ...]:
    """Return the sites of a graph in the order of the forward pass, equal ones as a range.

    Layers of one block print as `L`. Names start at `%0` in every block.
    """
    groups: dict[tuple[object, ...], list[tuple[tuple[Node, ...], Any]]] = {}
    for ends, at in _ends(graph):
        general = _site(ends, "L") if isinstance(at, Site) else (str(id(ends[0])),)
        key = (at.name if isinstance(at, Site) else at.ref.name, general)
        groups.setdefault(key, []).append((ends, at))
    return tuple(_block(members) for members in groups.values())


def _ends(graph: Graph) -> list[tuple[tuple[Node, ...], Any]]:
    """Return what each site hands on, captures and write, in order; unresolved ones apart."""
    found: dict[object, list[Node]] = {}
    for node in ops_of(graph):
        if is_op(node, write, emit):
            at = node.args[1]
            found.setdefault(at if isinstance(at, Site) else node, []).append(node)
    return [(tuple(nodes), nodes[0].args[1]) for nodes in found.values()]


def _block(members: list[tuple[tuple[Node, ...], Any]]) -> Block:
    ends, at = members[0]
    if isinstance(at, Sites):
        return Block(str(at), _site(ends, "L"))
    layers = [one.layer for _, one in members]
    layer = "L" if len(layers) > 1 else str(layers[0])
    return Block(f"{at.name}[{layer_text(layers)}]", _site(ends, layer))


def _site(ends: tuple[Node, ...], layer: str) -> tuple[Line, ...]:
    """Return the lines of a site: captures before its edits, the edits, captures after them."""
    lines: list[Line] = []
    for end in ends:
        lines += [_taken(end)] if is_op(end, emit) else _lines(end, layer)
    return tuple(lines)


def _taken(node: Node) -> Line:
    said = capture_of(node)
    parts = [f"capture to {said.to}", "after the edits" if said.after else "before the edits"]
    parts += [f"where {brief(selector_text(selector_of(node.args[2])))}"]  # type: ignore[arg-type]
    parts += [f"rank {said.rank}"] if said.rank else []
    parts += [f"of {said.sample:g} of the requests"] if said.sample else []
    parts += ["until marked"] if said.keep == "marked" else []
    return Line("", "rows      [n, H]", ", ".join(parts), _where(origins(node)))


def _lines(end: Node, layer: str) -> tuple[Line, ...]:
    result: Any = end.args[2]
    named = {node: f"%{i}" for i, node in enumerate(_whole(result, end.args[1]))}
    lines = [_line(node, named, layer, end) for node in named]
    written = "only read" if is_op(result, read) else f"write {named[result]}"
    return (*lines, Line("", "", written, _where(origins(end))))


def _whole(result: Node, at: Any) -> dict[Node, None]:
    """Return what a site's result is made from, and the gates that read there for later sites."""
    found = _needed(result, at)
    for node in [*found]:
        for user in node.users:
            if is_op(user, gate) and user.args[0] is node and user not in found:
                found |= _needed(user, at)
    return found


def _needed(node: Node, at: Any) -> dict[Node, None]:
    """Return a node and what it is made from, in the order of use, whatever the graph's order."""
    found: dict[Node, None] = {}
    if node.op == "call_function":
        whole = not is_op(node, read) and _site_of(node, at) == at
        for used in node.all_input_nodes if whole else ():
            found |= _needed(used, at)
        found[node] = None
    return found


def _site_of(node: Node, at: Any) -> Any:
    """Return the site at which a gate, or what stands for its weight, reads the stream."""
    if not is_op(node, gate, probe):
        return at
    start: Any = node.args[0]
    while not is_op(start, read):
        start = start.args[0]
    return start.args[1]


def _line(node: Node, named: dict[Node, str], layer: str, end: Node) -> Line:
    kind = OPS[op_name(node)].result
    inside = _columns(node, named) if is_op(node, update) else ()
    # A direction or a mask may serve other sites too: only the statements of this one count.
    where = _where(origin for origin in origins(node) if origin in origins(end))
    return Line(named[node], TYPES[kind], _text(node, named, layer, end.args[1]), where, inside)


def _text(node: Node, named: dict[Node, str], layer: str, at: Any) -> str:
    args: Any = node.args
    if is_op(node, read):
        return "read"
    if (site := _site_of(node, at)) != at:
        return f"gate of {site}"
    if is_op(node, constant, direction, adapter, linear_map):
        own = str(at.layer) if isinstance(at, Site) else "L"
        return f"{op_name(node)} {_label(args[0], own, layer)}"
    if is_op(node, update):
        return f"update {named[args[0]]}, K = {len(args[3])}"
    shown = (show_arg(arg, named) for arg in args if arg in named or not isinstance(arg, Node))
    return f"{op_name(node)} {', '.join(shown)}"


def _label(value: Any, own: str, layer: str) -> str:
    text = str(value)
    layers = getattr(value, "layers", ())
    if layers is None or layers:
        return text if layers is None else f"{text}[{layer}]"
    return text.replace(f"[{own}]", f"[{layer}]")


def _columns(node: Node, named: dict[Node, str]) -> tuple[Line, ...]:
    """Return what an update absorbed: what each column reads, adds, and where."""
    args: Any = node.args
    h, rows, masks, forms = args
    lines = []
    for j, form in enumerate(forms):
        where = _where(node.meta["columns"][j])
        if form.a >= 0:
            lines.append(Line("", COLUMN, f"p{j} = {_reads(form, rows, forms, named, h)}", ()))
        said = form_text(form, f"p{j}")
        weighed = f"g{form.gate}·" if form.gate >= 0 else ""
        if form.map is not None:
            moved = f"{weighed}{said} where {named[masks[j]]}"
            text = f"h = {named[h]} becomes h + {moved}, a matmul of its own"
        elif form.kind == Kind.GATE:
            text = f"g{j} = {weighed}{said} where {named[masks[j]]}"
        else:
            text = f"+ {weighed}c{j}·{named[rows[form.b]]} where {named[masks[j]]},  c{j} = {said}"
        if form.kind == Kind.ROTATE and form.block:
            text += f", r = √(p{j}² + p{j + 1}²), and the next with it"
        elif form.block:
            text += f"; columns {j} to {j + form.block - 1} are solved together"
        lines.append(Line("", COLUMN, text, where))
    return tuple(lines)


def _reads(form: Form, rows: Any, forms: Any, named: dict[Node, str], h: Node) -> str:
    a = named[rows[form.a]]
    seen = [i for i in range(len(forms)) if form.sees >> i & 1]
    terms = [f"({a}·{named[rows[forms[i].b]]})·c{i}" for i in seen]
    return " + ".join([f"{a}·{named[h]}", *terms])


def _where(found: Iterable[Origin]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(origin.where for origin in found))
