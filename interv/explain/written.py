"""The spec section: what a document says, and what its vectors hold."""

from __future__ import annotations

from dataclasses import dataclass

from interv.compile import Compilation, UsedVector
from interv.document.document import Document
from interv.document.selectors import selector_text
from interv.document.spec import (
    Ablate,
    Apply,
    Cap,
    Capture,
    Everything,
    Replace,
    Rotate,
    Statement,
    Steer,
    VectorDecl,
)
from interv.document.token_texts import texts, token_text
from interv.document.wording import layer_text, number_text, place_text
from interv.dsl.printer import capture_texts, gate_text, sink_text, strength_text, vector_text
from interv.kv.memory import bound_lines
from interv.kv.settings import KvSettings, advice, settings_of
from interv.model import KvFacts


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a document: its words in columns, and where it stands."""

    cells: tuple[str, ...]
    where: str


@dataclass(frozen=True, slots=True)
class ProgramRows:
    """A program as it was written."""

    name: str
    conflict: str
    kv: bool | None  # what it says of its requests' caches
    where: str
    statements: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class DocumentReport:
    """A document as it was written, and its vectors where they were loaded."""

    name: str
    vectors: tuple[Row, ...]
    tokens: tuple[Row, ...]  # the ids of its texts
    programs: tuple[ProgramRows, ...]
    sinks: tuple[Row, ...]
    conflict: Row | None
    default: Row | None
    kv: Row | None = None
    kv_lines: tuple[str, ...] = ()  # its own options, and what it bounds
    read: tuple[Row, ...] = ()  # what of a file was taken for what, where its names leave it open


def document_report(document: Document, compilation: Compilation | None = None) -> DocumentReport:
    """Say what a document holds; its vectors' sizes only where it was compiled."""
    spec = document.spec
    loaded = {
        used.index: used
        for used in (compilation.vectors if compilation else ())
        if used.document is document
    }
    settings = settings_of(document)
    model = compilation.model.kv if compilation else None
    return DocumentReport(
        name=document.name,
        vectors=tuple(
            Row(_vector(decl, loaded.get(i)), document.where("vectors", i))
            for i, decl in enumerate(spec.vectors)
        ),
        tokens=_tokens(document, compilation),
        programs=tuple(_program(document, i) for i in range(len(spec.programs))),
        sinks=tuple(
            Row((one.name, sink_text(one)), document.where("sinks", i))
            for i, one in enumerate(spec.sinks)
        ),
        conflict=Row((spec.conflict,), document.where("conflict")) if spec.conflict else None,
        default=Row((spec.default,), document.where("default")) if spec.default else None,
        kv=Row((_kv_text(settings),), document.where("kv")) if settings else None,
        kv_lines=_kv_lines(settings, model) if settings else (),
        read=tuple(
            Row((used.vector.name, note), document.where("vectors", i))
            for i, used in sorted(loaded.items())
            for note in used.vector.directions.reading
        ),
    )


def _kv_text(settings: KvSettings) -> str:
    text = f"{settings.policy}  budget {settings.budget}, buffer {settings.buffer}"
    return f"{text}, window {settings.window}, {settings.scope.replace('_', ' ')}"


def _kv_lines(settings: KvSettings, model: KvFacts | None) -> tuple[str, ...]:
    own = ", ".join(f"{name} {value}" for name, value in settings.own)
    asked = (
        ()
        if settings.default
        else ("for requests that ask for it, or whose programs do, and no others",)
    )
    lines = (*([own] if own else []), *asked)
    return (*lines, *bound_lines(settings, model), *advice(settings))


def _tokens(document: Document, compilation: Compilation | None) -> tuple[Row, ...]:
    """Say which ids each text became, where it stands first; nothing without a tokenizer."""
    ids = compilation.token_ids if compilation else {}
    return tuple(
        Row((token_text(text), f"= {_ids_text(ids[text])}"), document.where(*path))
        for text, path in texts(document).items()
        if text in ids
    )


def _ids_text(ids: tuple[int, ...]) -> str:
    return str(ids[0]) if len(ids) == 1 else str([*ids])


def _program(document: Document, index: int) -> ProgramRows:
    program, path = document.spec.programs[index], ("programs", index)
    rows = (
        Row(statement_cells(one), document.where(*path, "statements", i))
        for i, one in enumerate(program.statements)
    )
    return ProgramRows(
        program.name, program.conflict, program.kv, document.where(*path), tuple(rows)
    )


def _vector(decl: VectorDecl, used: UsedVector | None) -> tuple[str, ...]:
    source = vector_text(decl)
    if used is None:
        return (decl.name, source)
    layers = used.vector.layers
    held = "every layer" if layers is None else f"layers {layer_text(layers)}"
    return (decl.name, source, f"[{used.vector.directions.width}] float32, {held}")


def statement_cells(statement: Statement) -> tuple[str, ...]:
    """Return a statement as columns: op, vector, site, numbers, selector."""
    where = f"at {place_text(statement.at)}"
    match statement:
        case Steer():
            kept = " keep norm" if statement.keep_norm else ""
            norm = " norm" if statement.by_norm else ""
            cells = (statement.vector, where, f"scale {number_text(statement.scale)}{norm}{kept}")
        case Apply():
            cells = (statement.adapter, where, f"scale {number_text(statement.scale)}")
        case Replace(by=None):
            scale = f"scale {number_text(statement.scale)}"
            cells = (statement.vector, where, scale + _strength(statement.strength))
        case Replace():
            names = f"{statement.vector} by {statement.by}"
            cells = (names, where, _strength(statement.strength).strip())
        case Rotate():
            names = f"{statement.vector} towards {statement.towards}"
            turned = f"to {number_text(statement.to)}{' adaptive' if statement.adaptive else ''}"
            cells = (names, where, turned + _strength(statement.strength))
        case Cap():
            cells = (statement.vector, where, _bounds(statement) + _strength(statement.strength))
        case Ablate():
            kept = " keep norm" if statement.keep_norm else ""
            cells = (statement.vector, where, f"{strength_text(statement)}{kept}".strip())
        case Capture():
            return (statement.op, "", where, *capture_texts(statement))
    if statement.decay != 1:
        cells = (*cells[:2], f"{cells[2]} decay {number_text(statement.decay)}".strip())
    when = getattr(statement, "when", Everything())
    tokens = [] if isinstance(when, Everything) else [f"when {selector_text(when)}"]
    gate = getattr(statement, "gate", None)
    return (statement.op, *cells, " ".join([*tokens, *([gate_text(gate)] if gate else [])]))


def _bounds(statement: Cap) -> str:
    low = "" if statement.low is None else number_text(statement.low)
    high = "" if statement.high is None else number_text(statement.high)
    return f"in [{low}, {high}]"


def _strength(strength: float) -> str:
    return "" if strength == 1 else f" strength {number_text(strength)}"
