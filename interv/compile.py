"""Documents → bundle: the whole compiler in one call, with everything on the way kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interv.checks import check_document
from interv.document import Document
from interv.errors import IntervError, Label, raise_all
from interv.model import ModelFacts
from interv.spec import Conflict, Program

if TYPE_CHECKING:
    from interv.codegen.bundle import Bundle
    from interv.passes.constants import Vector
    from interv.passes.pipeline import Stage
    from interv.passes.plan import Plan


@dataclass(frozen=True, slots=True, eq=False)
class CompiledProgram:
    """One program and its graph after every pass."""

    name: str
    document: Document
    index: int  # in the document
    stages: tuple[Stage, ...]

    @property
    def spec(self) -> Program:
        """Return the program as it was written."""
        return self.document.spec.programs[self.index]

    @property
    def conflict(self) -> Conflict:
        """Return the program's conflict policy."""
        return self.spec.conflict


@dataclass(frozen=True, slots=True, eq=False)
class UsedVector:
    """A vector of a document as it was loaded."""

    vector: Vector
    document: Document
    index: int
    programs: tuple[str, ...]  # those that use it; none is allowed


@dataclass(frozen=True, slots=True, eq=False)
class Compilation:
    """The result of the compiler: the bundle, and what the explain tells of the way there."""

    model: ModelFacts
    documents: tuple[Document, ...]
    programs: tuple[CompiledProgram, ...]
    vectors: tuple[UsedVector, ...]
    plan: Plan
    bundle: Bundle


def compile_documents(documents: Sequence[Document], model: ModelFacts) -> Compilation:
    """Compile documents for a model, all their programs into one bundle.

    Raises everything that is wrong with them, as far as stages can go on, in one error: what a
    document gets wrong by itself (E20x, E21x), what is not supported yet (E29x), programs or
    defaults named twice (E402, E403), vector files (E22x), what does not fit the model (E24x),
    conflicts (E401), sizes (E41x).
    """
    from interv.codegen.emit import emit
    from interv.load import refuse_unsupported
    from interv.passes.place import place

    errors: list[IntervError] = []
    for document in documents:
        try:
            check_document(document)
            refuse_unsupported(document)
        except IntervError as error:
            errors.append(error)
    errors += _named_twice(documents)
    default = _default(documents, errors)
    used = tuple(_load_vectors(documents, errors))
    raise_all(errors)
    programs = tuple(_compile_programs(documents, used, model, errors))
    raise_all(errors)
    graphs = {program.name: program.stages[-1].graph for program in programs}
    conflicts: Mapping[str, Conflict] = {one.name: one.conflict for one in programs}
    plan = place(graphs, conflicts, model)
    return Compilation(model, tuple(documents), programs, used, plan, emit(plan, default))


def _named_twice(documents: Sequence[Document]) -> list[IntervError]:
    seen: dict[str, tuple[Document, int]] = {}
    errors = []
    for document, index, program in _programs(documents):
        if program.name in seen:
            first, at = seen[program.name]
            span = first.span("programs", at, "name")
            errors.append(
                IntervError(
                    "E402",
                    f"two programs are named '{program.name}':"
                    f" {first.where('programs', at)} and {document.where('programs', index)}",
                    document.span("programs", index, "name"),
                    "named again",
                    more=[Label(span, "named first")] if span else [],
                )
            )
        seen.setdefault(program.name, (document, index))
    return errors


def _programs(documents: Sequence[Document]) -> Iterable[tuple[Document, int, Program]]:
    for document in documents:
        for index, program in enumerate(document.spec.programs):
            yield document, index, program


def _default(documents: Sequence[Document], errors: list[IntervError]) -> str | None:
    holders = [document for document in documents if document.spec.default is not None]
    for other in holders[1:]:
        first = holders[0].span("default")
        errors.append(
            IntervError(
                "E403",
                "two documents name a default program:"
                f" {holders[0].where('default')} and {other.where('default')}",
                other.span("default"),
                "named again",
                more=[Label(first, "named first")] if first else [],
                helps=["keep one of them: it applies to every request that says nothing"],
            )
        )
    return holders[0].spec.default if holders else None


def _load_vectors(documents: Sequence[Document], errors: list[IntervError]) -> Iterable[UsedVector]:
    from interv.passes.constants import Vector
    from interv.vectors import load_vector

    for document in documents:
        for index, decl in enumerate(document.spec.vectors):
            span = document.span("vectors", index, "path")
            try:
                directions = load_vector(decl, document.root, span)
            except IntervError as error:
                errors.append(error)
                continue
            users = tuple(
                program.name
                for program in document.spec.programs
                if any(getattr(one, "vector", None) == decl.name for one in program.statements)
            )
            yield UsedVector(Vector(decl.name, directions), document, index, users)


def _compile_programs(
    documents: Sequence[Document],
    used: Sequence[UsedVector],
    model: ModelFacts,
    errors: list[IntervError],
) -> Iterable[CompiledProgram]:
    from interv.passes.build import build
    from interv.passes.context import Context
    from interv.passes.pipeline import run_passes

    for document, index, program in _programs(documents):
        vectors = {one.vector.name: one.vector for one in used if one.document is document}
        ctx = Context(program.name, program.conflict, model)
        try:
            stages = run_passes(build(document, index, vectors, model.num_layers), ctx)
        except IntervError as error:
            errors.append(error)
            continue
        yield CompiledProgram(program.name, document, index, stages)
