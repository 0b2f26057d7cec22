"""Documents → bundle: the whole compiler in one call, with everything on the way kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from interv.across import (
    compressed_programs,
    conflict_policy,
    default_program,
    kv_policy,
    named_twice,
    programs_of,
)
from interv.document.checks import check_document
from interv.document.document import Document
from interv.document.spec import Conflict, Program, vector_names
from interv.document.token_texts import Encode, token_ids, with_ids
from interv.errors import IntervError, raise_all
from interv.model import ModelFacts

if TYPE_CHECKING:
    from interv.codegen.bundle import Bundle, SinkUse
    from interv.passes.graph.directions import Adapter, Vector
    from interv.passes.pipeline import Stage
    from interv.passes.placing.plan import Plan


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
class UsedAdapter:
    """An adapter of a document as it was loaded."""

    adapter: Adapter
    document: Document
    index: int


@dataclass(frozen=True, slots=True, eq=False)
class Compilation:
    """The result of the compiler: the bundle, and what the explain tells of the way there."""

    model: ModelFacts
    documents: tuple[Document, ...]
    programs: tuple[CompiledProgram, ...]
    vectors: tuple[UsedVector, ...]
    adapters: tuple[UsedAdapter, ...]
    plan: Plan
    bundle: Bundle
    conflict: Conflict  # where programs of one request meet
    token_ids: Mapping[str, tuple[int, ...]]  # what each `token("text")` of the documents became


def compile_documents(
    documents: Sequence[Document],
    model: ModelFacts,
    encode: Encode | None = None,
    inline: bool = False,
) -> Compilation:
    """Compile documents for a model, all their programs into one bundle.

    `encode` is the model's tokenizer, which gives the ids of a text without special tokens; only
    `token("text")` needs it. Under `inline` the banks hold every declared vector, for programs
    that requests bring along.

    Raises everything that is wrong with them, as far as stages can go on, in one error: what a
    document gets wrong by itself (E20x, E21x), what is not supported yet (E29x), what stands in
    two documents and differs or may stand in one (E299, E402, E403, E404), what asks for a KV
    policy that is not there (E295), vector files (E22x), what does not fit the model (E24x),
    conflicts (E401), sizes (E41x).
    """
    from interv.codegen.emit import emit
    from interv.passes.place import place

    errors: list[IntervError] = []
    ids: dict[str, tuple[int, ...]] = {}
    resolved = list(_resolve(documents, encode, ids, errors))
    errors += named_twice(documents)
    default, conflict = default_program(documents, errors), conflict_policy(documents, errors)
    kv = kv_policy(documents, errors)
    compressed = compressed_programs(documents, errors)
    used = tuple(_load_vectors(documents, errors))
    adapters = tuple(_load_adapters(documents, errors))
    raise_all(errors)
    programs = tuple(_compile_programs(documents, resolved, used, adapters, model, errors))
    raise_all(errors)
    graphs = {program.name: program.stages[-1].graph for program in programs}
    conflicts: Mapping[str, Conflict] = {one.name: one.conflict for one in programs}
    spare = [one.vector for one in used] if inline else []
    plan = place(graphs, conflicts, model, spare)
    sinks = {one.name: _sinks(one.document) for one in programs}
    bundle = replace(emit(plan, default, conflict, inline, sinks), kv=kv, compressed=compressed)
    return Compilation(
        model, tuple(documents), programs, used, adapters, plan, bundle, conflict, ids
    )


def _sinks(document: Document) -> Mapping[str, SinkUse]:
    from interv.codegen.bundle import SinkUse

    root = document.root.resolve()
    return {decl.name: SinkUse(decl, root) for decl in document.spec.sinks}


def _resolve(
    documents: Sequence[Document],
    encode: Encode | None,
    ids: dict[str, tuple[int, ...]],
    errors: list[IntervError],
) -> Iterable[Document]:
    """Yield the documents that are fine with ids in place of texts, and collect those ids."""
    from interv.load import refuse_unsupported

    for document in documents:
        try:
            check_document(document)
            refuse_unsupported(document)
            found = token_ids(document, encode)
            resolved = with_ids(document, found)
            # Which selectors can match is known only now where they name texts.
            check_document(resolved)
        except IntervError as error:
            errors.append(error)
            continue
        ids |= found
        yield resolved


def _loaded(
    kind: Literal["vectors", "adapters"],
    load: Callable[..., Any],
    documents: Sequence[Document],
    errors: list[IntervError],
) -> Iterator[tuple[Document, int, str, Any]]:
    """Yield what each declaration of a kind names, with its document, place and name."""
    for document in documents:
        for index, decl in enumerate(getattr(document.spec, kind)):
            try:
                found = load(decl, document.root, document.span(kind, index, "path"))
            except IntervError as error:
                errors.append(error)
            else:
                yield document, index, decl.name, found


def _load_vectors(documents: Sequence[Document], errors: list[IntervError]) -> Iterable[UsedVector]:
    from interv.passes.graph.directions import Vector
    from interv.vectors import load_vector

    users = {id(one): _users(one) for one in documents}
    for document, index, name, found in _loaded("vectors", load_vector, documents, errors):
        programs = tuple(users[id(document)].get(name, ()))
        yield UsedVector(Vector(name, found), document, index, programs)


def _users(document: Document) -> dict[str, dict[str, None]]:
    """Return the programs that use each vector, in the order of the document."""
    found: dict[str, dict[str, None]] = {}
    for program in document.spec.programs:
        for statement in program.statements:
            for name in vector_names(statement):
                found.setdefault(name, {})[program.name] = None
    return found


def _load_adapters(
    documents: Sequence[Document], errors: list[IntervError]
) -> Iterable[UsedAdapter]:
    from interv.passes.graph.directions import Adapter
    from interv.vectors.adapters import load_adapter

    for document, index, name, found in _loaded("adapters", load_adapter, documents, errors):
        yield UsedAdapter(Adapter(name, found), document, index)


def _compile_programs(
    documents: Sequence[Document],
    resolved: Sequence[Document],
    used: Sequence[UsedVector],
    loaded: Sequence[UsedAdapter],
    model: ModelFacts,
    errors: list[IntervError],
) -> Iterable[CompiledProgram]:
    from interv.passes.build import build
    from interv.passes.graph.context import Context
    from interv.passes.pipeline import run_passes

    vectors_of: dict[int, dict[str, Vector]] = {id(document): {} for document in documents}
    adapters_of: dict[int, dict[str, Adapter]] = {id(document): {} for document in documents}
    for one in used:
        vectors_of[id(one.document)][one.vector.name] = one.vector
    for other in loaded:
        adapters_of[id(other.document)][other.adapter.name] = other.adapter
    pairs = zip(programs_of(documents), programs_of(resolved), strict=True)
    for (document, index, program), (with_ids_only, _, _) in pairs:
        vectors, adapters = vectors_of[id(document)], adapters_of[id(document)]
        ctx = Context(program.name, program.conflict, model)
        try:
            graph = build(with_ids_only, index, vectors, model.num_layers, adapters)
            stages = run_passes(graph, ctx)
        except IntervError as error:
            errors.append(error)
            continue
        yield CompiledProgram(program.name, document, index, stages)
