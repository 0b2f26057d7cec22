"""The spec section: what a document says, and what its vectors hold."""

from __future__ import annotations

from dataclasses import dataclass

from interv.compile import Compilation, UsedVector
from interv.document import Document
from interv.selectors import selector_text
from interv.spec import Ablate, Cap, Everything, Statement, Steer, VectorDecl
from interv.wording import layer_text, number_text, place_text


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
    where: str
    statements: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class DocumentReport:
    """A document as it was written, and its vectors where they were loaded."""

    name: str
    vectors: tuple[Row, ...]
    programs: tuple[ProgramRows, ...]
    default: Row | None


def document_report(document: Document, compilation: Compilation | None = None) -> DocumentReport:
    """Say what a document holds; its vectors' sizes only where it was compiled."""
    spec = document.spec
    loaded = {
        used.index: used
        for used in (compilation.vectors if compilation else ())
        if used.document is document
    }
    return DocumentReport(
        name=document.name,
        vectors=tuple(
            Row(_vector(decl, loaded.get(i)), document.where("vectors", i))
            for i, decl in enumerate(spec.vectors)
        ),
        programs=tuple(_program(document, i) for i in range(len(spec.programs))),
        default=Row((spec.default,), document.where("default")) if spec.default else None,
    )


def _program(document: Document, index: int) -> ProgramRows:
    program, path = document.spec.programs[index], ("programs", index)
    rows = (
        Row(statement_cells(one), document.where(*path, "statements", i))
        for i, one in enumerate(program.statements)
    )
    return ProgramRows(program.name, program.conflict, document.where(*path), tuple(rows))


def _vector(decl: VectorDecl, used: UsedVector | None) -> tuple[str, ...]:
    key = f' key "{decl.key}"' if decl.key else ""
    source = f'"{decl.path}"{key}{" unit" if decl.unit else ""}'
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
            cells = (statement.vector, where, f"scale {number_text(statement.scale)}")
        case Cap():
            cells = (statement.vector, where, _bounds(statement) + _strength(statement.strength))
        case Ablate():
            cells = (statement.vector, where, _strength(statement.strength).strip())
        case _:
            cells = ("", where, "")
    when = getattr(statement, "when", Everything())
    tokens = "" if isinstance(when, Everything) else f"when {selector_text(when)}"
    return (statement.op, *cells, tokens)


def _bounds(statement: Cap) -> str:
    low = "" if statement.low is None else number_text(statement.low)
    high = "" if statement.high is None else number_text(statement.high)
    return f"in [{low}, {high}]"


def _strength(strength: float) -> str:
    return "" if strength == 1 else f" strength {number_text(strength)}"
