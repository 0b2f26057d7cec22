"""Print a `Spec` as canonical text: what parses back to the same `Spec`."""

from __future__ import annotations

import json
from collections.abc import Iterator

from interv.document.selectors import selector_text
from interv.document.spec import (
    Ablate,
    Apply,
    Cap,
    Capture,
    Edit,
    Everything,
    Gate,
    KvPolicy,
    Program,
    Replace,
    RequestExpression,
    Rotate,
    Scalar,
    SinkDecl,
    Spec,
    Statement,
    Steer,
    VectorDecl,
)
from interv.document.wording import number_text, on_off, place_text
from interv.dsl.layout import Line, block, lay_out, statement_cells


def print_spec(spec: Spec) -> str:
    """Print a whole document; parts that equal their default are left out."""
    return lay_out(_document(spec))


def print_statement(statement: Statement) -> str:
    """Print one statement on one line."""
    return " ".join(cell for cell in _cells(statement) if cell)


def print_expression(expression: RequestExpression) -> str:
    """Print what a request asks for: `calm*1.5 + formal`, or `off`."""
    terms = [
        term.program if term.multiplier == 1 else f"{term.program}*{number_text(term.multiplier)}"
        for term in expression.terms
    ]
    return " + ".join(terms) or "off"


def quoted(text: str) -> str:
    """Print a text in quotes, with the escapes of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _document(spec: Spec) -> Iterator[Line]:
    yield Line(("interv 1",), "plain")
    declared = [_vector(vector) for vector in spec.vectors]
    declared += [(f"adapter {one.name}", f"= {quoted(one.path)}") for one in spec.adapters]
    for i, cells in enumerate(declared):
        yield Line(cells, "declaration", blank_before=i == 0)
    for program in spec.programs:
        yield from _program(program)
    after = [*(_sink(sink) for sink in spec.sinks)]
    if spec.kv is not None:
        after += _kv(spec.kv)
    if spec.conflict is not None:
        after.append(Line((f"conflict {spec.conflict}",), "plain"))
    if spec.default is not None:
        after.append(Line((f"default {spec.default}",), "plain"))
    for i, line in enumerate(after):
        yield Line(line.cells, line.kind, line.depth, blank_before=i == 0)


def _vector(vector: VectorDecl) -> tuple[str, ...]:
    return (f"vector {vector.name}", f"= {vector_text(vector)}")


def vector_text(vector: VectorDecl) -> str:
    """Print the file of a vector and what is taken of it."""
    parts = [quoted(vector.path)]
    if vector.key is not None:
        parts.append(f"key {quoted(vector.key)}")
    if vector.row is not None:
        parts.append(f"row {vector.row}")
    if vector.rows is not None:
        parts.append(f"rows {vector.rows}")
    if vector.unit:
        parts.append("unit")
    return " ".join(parts)


def _sink(sink: SinkDecl) -> Line:
    return Line((f"sink {sink.name}", f"= {sink_text(sink)}"), "declaration")


def sink_text(sink: SinkDecl) -> str:
    """Print the kind of a sink with its options."""
    args = [scalar_text(one) for one in sink.args]
    args += [f"{name} = {scalar_text(value)}" for name, value in sink.options]
    return f"{sink.kind}({', '.join(args)})"


def _kv(policy: KvPolicy) -> list[Line]:
    options = [f"{name} = {scalar_text(value)}" for name, value in policy.options]
    head = f"kv {policy.policy}"
    if (text := block(head, options)) is not None:
        return [Line((text,), "plain")]
    inner = [Line((option,), "plain", 1) for option in options]
    return [Line((f"{head} {{",), "plain"), *inner, Line(("}",), "plain")]


def scalar_text(value: Scalar) -> str:
    """Print the value of an option; a text that reads as a word stands without quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    bare = value.isascii() and value.isidentifier() and value not in ("true", "false")
    return value if bare else quoted(value)


def _program(program: Program) -> Iterator[Line]:
    yield Line((f"program {program.name} {{",), "plain", blank_before=True)
    for statement in program.statements:
        yield Line(_cells(statement), "edit", 1)
    if program.conflict != "sequential":
        yield Line((f"conflict {program.conflict}",), "plain", 1)
    if program.kv is not None:
        yield Line((f"kv {on_off(program.kv)}",), "plain", 1)
    yield Line(("}",), "plain")


def _cells(statement: Statement) -> tuple[str, ...]:
    if isinstance(statement, Capture):
        return statement_cells("capture", "", _capture(statement))
    target = statement.adapter if isinstance(statement, Apply) else statement.vector
    return statement_cells(statement.op, target, _edit(statement))


def _edit(edit: Steer | Cap | Ablate | Replace | Rotate | Apply) -> dict[str, str]:
    clauses = {"at": f"at {place_text(edit.at)}"}
    if isinstance(edit, Replace) and edit.by is not None:
        clauses["by"] = f"by {edit.by}"
    if isinstance(edit, Steer | Replace | Apply) and (scale := scale_text(edit)):
        clauses["scale"] = scale
    if isinstance(edit, Steer | Ablate) and edit.keep_norm:
        clauses["keep"] = "keep norm"
    if isinstance(edit, Cap):
        low, high = ("" if end is None else number_text(end) for end in (edit.low, edit.high))
        clauses["in"] = f"in [{low}, {high}]"
    if isinstance(edit, Rotate):
        clauses["towards"], clauses["to"] = f"towards {edit.towards}", f"to {number_text(edit.to)}"
        clauses |= {"adaptive": "adaptive"} if edit.adaptive else {}
    if isinstance(edit, Cap | Ablate | Replace | Rotate) and (strength := strength_text(edit)):
        clauses["strength"] = strength
    if edit.decay != 1:
        clauses["decay"] = f"decay {number_text(edit.decay)}"
    clauses |= _condition(edit)
    return clauses


def scale_text(edit: Steer | Replace | Apply) -> str:
    """Print the scale of an edit as a clause; nothing where it is what it is without one."""
    norm = " norm" if isinstance(edit, Steer) and edit.by_norm else ""
    return f"scale {number_text(edit.scale)}{norm}" if norm or edit.scale != 1 else ""


def strength_text(edit: Cap | Ablate | Replace | Rotate) -> str:
    """Print the strength of an edit as a clause; nothing where it is what it is without one."""
    over = " over" if isinstance(edit, Ablate) and edit.over else ""
    return f"strength {number_text(edit.strength)}{over}" if over or edit.strength != 1 else ""


def _condition(edit: Edit) -> dict[str, str]:
    clauses = {}
    if not isinstance(edit.when, Everything):
        clauses["when"] = f"when {selector_text(edit.when)}"
    if edit.gate is not None:
        clauses["gate"] = gate_text(edit.gate)
    return clauses


def gate_text(gate: Gate) -> str:
    """Print a gate as a clause."""
    parts = [f"gate {gate.vector}"]
    if gate.site is not None:
        parts.append(f"at {place_text(gate.site)}")
    parts += [word for word in ("absolute", "cosine") if getattr(gate, word)]
    if gate.sharpness != 1:
        parts.append(f"sharpness {number_text(gate.sharpness)}")
    if gate.threshold != 0:
        parts.append(f"threshold {number_text(gate.threshold)}")
    bounds = {"above": gate.above, "below": gate.below}
    parts += [f"{word} {number_text(at)}" for word, at in bounds.items() if at is not None]
    return " ".join(parts)


def capture_texts(capture: Capture) -> tuple[str, str]:
    """Print which rows a capture takes, and where they go and how."""
    said = _capture(capture)
    parts = (("tokens",), ("to", "after", "rank", "sample", "keep"))
    first, rest = (" ".join(said[name] for name in part if name in said) for part in parts)
    return first, rest


def _capture(capture: Capture) -> dict[str, str]:
    clauses = {"at": f"at {place_text(capture.at)}", "to": f"to {capture.to}"}
    if not isinstance(capture.tokens, Everything):
        clauses["tokens"] = f"tokens {selector_text(capture.tokens)}"
    if capture.after:
        clauses["after"] = "after"
    if capture.rank is not None:
        clauses["rank"] = f"rank {capture.rank}"
    if capture.sample is not None:
        clauses["sample"] = f"sample {number_text(capture.sample)}"
    if capture.keep != "all":
        clauses["keep"] = f"keep {capture.keep}"
    return clauses
