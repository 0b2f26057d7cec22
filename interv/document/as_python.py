"""Print a spec as the builder program that rebuilds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from keyword import iskeyword

from interv.document.selectors import phase_text, position_text
from interv.document.spec import (
    Ablate,
    After,
    And,
    Apply,
    At,
    Before,
    Between,
    Cap,
    Capture,
    Edit,
    Everything,
    Gate,
    InPhase,
    LayerRange,
    Node,
    Not,
    Or,
    Positions,
    Program,
    Replace,
    Rotate,
    Scalar,
    Selector,
    SiteRef,
    Slice,
    Spec,
    Statement,
    Steer,
    Stride,
    Token,
)

HEADER = """\
from interv.builder import all_of, any_of, everything, gate, generated, layers, new_document
from interv.builder import post_attn, post_block, pre_attn, prompt, token
from interv.builder import after, before, between

doc = new_document()"""


def to_python(spec: Spec) -> str:
    """Print a program after which `doc.spec()` equals `spec`."""
    return "".join(f"{line}\n" for line in (HEADER, *_lines(spec)))


def _lines(spec: Spec) -> Iterator[str]:
    for vector in spec.vectors:
        options = _given(key=vector.key, row=vector.row, rows=vector.rows, unit=vector.unit or None)
        yield _call("doc.vector", [repr(vector.name), repr(vector.path)], options)
    for adapter in spec.adapters:
        yield _call("doc.adapter", [repr(adapter.name), repr(adapter.path)], {})
    for sink in spec.sinks:
        args = [repr(sink.name), repr(sink.kind), *map(repr, sink.args)]
        yield f"doc.sink({_with_options(args, sink.options)})"
    if spec.kv is not None:
        yield f"doc.kv({_with_options([repr(spec.kv.policy)], spec.kv.options)})"
    if spec.conflict is not None:
        yield f"doc.conflict({spec.conflict!r})"
    for program in spec.programs:
        yield from _program(program)
    if spec.default is not None:
        yield f"doc.default({spec.default!r})"


def _program(program: Program) -> Iterator[str]:
    conflict = None if program.conflict == "sequential" else program.conflict
    yield _call(
        "program = doc.program", [repr(program.name)], _given(conflict=conflict, kv=program.kv)
    )
    for statement in program.statements:
        yield _statement(statement)


def _statement(statement: Statement) -> str:
    arguments = {"at": _place(statement.at), **_details(statement)}
    if isinstance(statement, Capture):
        return _call("program.capture", [], arguments)
    if not isinstance(statement.when, Everything):
        arguments["when"] = _selector(statement.when)
    if statement.gate is not None:
        arguments["gate"] = _gate(statement.gate)
    target = statement.adapter if isinstance(statement, Apply) else statement.vector
    return _call(f"program.{statement.op}", [repr(target)], arguments)


def _details(statement: Statement) -> dict[str, str]:
    match statement:
        case Steer():
            return _amounts(statement) | _flags(statement, "by_norm", "keep_norm")
        case Apply():
            return _amounts(statement)
        case Cap():
            return _given(low=statement.low, high=statement.high) | _amounts(statement)
        case Ablate():
            return _amounts(statement) | _flags(statement, "over", "keep_norm")
        case Rotate():
            turned = _given(towards=statement.towards, to=statement.to)
            adaptive = _given(adaptive=statement.adaptive or None)
            return turned | adaptive | _amounts(statement)
        case Replace():
            return _given(by=statement.by) | _amounts(statement)
        case Capture():
            tokens = (
                {}
                if isinstance(statement.tokens, Everything)
                else {"tokens": _selector(statement.tokens)}
            )
            return tokens | _given(
                to=statement.to,
                after=statement.after or None,
                rank=statement.rank,
                sample=statement.sample,
                keep=None if statement.keep == "all" else statement.keep,
            )


def _amounts(edit: Edit) -> dict[str, str]:
    """Return the scale, strength and decay of an edit that has them, where they are not 1."""
    amounts = {name: getattr(edit, name, 1) for name in ("scale", "strength", "decay")}
    return {name: repr(value) for name, value in amounts.items() if value != 1}


def _flags(node: Node, *names: str) -> dict[str, str]:
    return {name: "True" for name in names if getattr(node, name)}


def _given(**values: object) -> dict[str, str]:
    return {name: repr(value) for name, value in values.items() if value is not None}


def _call(function: str, args: list[str], named: Mapping[str, str]) -> str:
    return (
        f"{function}({', '.join([*args, *(f'{name}={value}' for name, value in named.items())])})"
    )


def _with_options(args: list[str], options: tuple[tuple[str, Scalar], ...]) -> str:
    plain = all(not iskeyword(name) for name, _ in options)
    if plain:
        return ", ".join([*args, *(f"{name}={value!r}" for name, value in options)])
    pairs = ", ".join(f"{name!r}: {value!r}" for name, value in options)
    return ", ".join([*args, f"**{{{pairs}}}"])


def _place(place: SiteRef) -> str:
    return f"{place.name}[{', '.join(_layer(layer) for layer in place.layers)}]"


def _layer(layer: str | int | LayerRange) -> str:
    if isinstance(layer, LayerRange):
        return f"layers({layer.first}, {layer.last})"
    return "..." if layer == "*" else str(layer)


def _gate(gate: Gate) -> str:
    site = {} if gate.site is None else {"at": _place(gate.site)}
    sharpness = None if gate.sharpness == 1 else gate.sharpness
    threshold = None if gate.threshold == 0 else gate.threshold
    curve = _given(sharpness=sharpness, threshold=threshold, above=gate.above, below=gate.below)
    named = site | _flags(gate, "absolute", "cosine") | curve
    return _call("gate", [repr(gate.vector)], named)


def _selector(selector: Selector) -> str:
    match selector:
        case Everything():
            return "everything"
        case InPhase() | At() | Slice() | Stride():
            return phase_text(selector)
        case Positions(phase=phase, items=items):
            listed = (repr(one if isinstance(one, int) else position_text(one)) for one in items)
            return f"{phase}[{', '.join(listed)}]"
        case Token():
            ids = ([*one] if isinstance(one, tuple) else one for one in selector.ids)
            return f"token({', '.join(map(repr, ids))})"
        case After() | Before():
            return f"{selector.kind}({_selector(selector.mark)})"
        case Between():
            return f"between({_selector(selector.start)}, {_selector(selector.end)})"
        case Not():
            term = _selector(selector.term)
            return f"~({term})" if isinstance(selector.term, And | Or) else f"~{term}"
        case And():
            return _group("all_of", " & ", selector.terms, type(selector))
        case Or():
            return _group("any_of", " | ", selector.terms, type(selector))


def _group(name: str, sign: str, terms: tuple[Selector, ...], kind: type[Selector]) -> str:
    """Chain with `&` or `|`, where the chain does not swallow its own first group."""
    texts = [_selector(term) for term in terms]
    if isinstance(terms[0], kind):
        return f"{name}({', '.join(texts)})"
    grouped = [
        f"({text})" if isinstance(term, And | Or) else text
        for text, term in zip(texts, terms, strict=True)
    ]
    return sign.join(grouped)
