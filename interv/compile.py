"""Documents → bundle: the whole compiler in one call, with everything on the way kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from interv.checks import check_document
from interv.document import Document
from interv.errors import IntervError, Label, raise_all
from interv.kv.settings import KvSettings, settings_of
from interv.model import ModelFacts
from interv.spec import Conflict, Program, vector_names
from interv.token_texts import Encode, token_ids, with_ids

if TYPE_CHECKING:
    from interv.codegen.bundle import Bundle, SinkUse
    from interv.passes.constants import Adapter, Vector
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
    token_ids: Mapping[str, int]  # what each `token("text")` of the documents became


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
    two documents and differs or may stand in one (E299, E402, E403, E404), vector files (E22x),
    what does not fit the model (E24x), conflicts (E401), sizes (E41x).
    """
    from interv.codegen.emit import emit
    from interv.passes.place import place

    errors: list[IntervError] = []
    ids: dict[str, int] = {}
    resolved = list(_resolve(documents, encode, ids, errors))
    errors += _named_twice(documents)
    default, conflict = _default(documents, errors), _conflict(documents, errors)
    kv = _kv(documents, errors)
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
    bundle = replace(emit(plan, default, conflict, inline, sinks), kv=kv)
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
    ids: dict[str, int],
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


def _conflict(documents: Sequence[Document], errors: list[IntervError]) -> Conflict:
    holders = [document for document in documents if document.spec.conflict is not None]
    for other in holders[1:]:
        if other.spec.conflict != holders[0].spec.conflict:
            first = holders[0].span("conflict")
            errors.append(
                IntervError(
                    "E404",
                    "two documents state different conflict policies:"
                    f" {holders[0].where('conflict')} and {other.where('conflict')}",
                    other.span("conflict"),
                    f"{other.spec.conflict} here",
                    more=[Label(first, f"{holders[0].spec.conflict} here")] if first else [],
                    helps=["one policy applies wherever programs of one request meet"],
                )
            )
    return (holders[0].spec.conflict if holders else None) or "sequential"


def _kv(documents: Sequence[Document], errors: list[IntervError]) -> KvSettings | None:
    holders = [document for document in documents if document.spec.kv is not None]
    for other in holders[1:]:
        first = holders[0].span("kv")
        errors.append(
            IntervError(
                "E299",
                "two documents declare a KV policy:"
                f" {holders[0].where('kv')} and {other.where('kv')}",
                other.span("kv"),
                "declared again",
                more=[Label(first, "declared first")] if first else [],
                helps=["keep one of them: an engine has one cache"],
            )
        )
    # What is wrong with a policy by itself was found with its document.
    return None if errors or not holders else settings_of(holders[0])


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
                if any(decl.name in vector_names(one) for one in program.statements)
            )
            yield UsedVector(Vector(decl.name, directions), document, index, users)


def _load_adapters(
    documents: Sequence[Document], errors: list[IntervError]
) -> Iterable[UsedAdapter]:
    from interv.passes.constants import Adapter
    from interv.vectors.adapters import load_adapter

    for document in documents:
        for index, decl in enumerate(document.spec.adapters):
            span = document.span("adapters", index, "path")
            try:
                loaded = load_adapter(decl, document.root, span)
            except IntervError as error:
                errors.append(error)
                continue
            yield UsedAdapter(Adapter(decl.name, loaded), document, index)


def _compile_programs(
    documents: Sequence[Document],
    resolved: Sequence[Document],
    used: Sequence[UsedVector],
    loaded: Sequence[UsedAdapter],
    model: ModelFacts,
    errors: list[IntervError],
) -> Iterable[CompiledProgram]:
    from interv.passes.build import build
    from interv.passes.context import Context
    from interv.passes.pipeline import run_passes

    pairs = zip(_programs(documents), _programs(resolved), strict=True)
    for (document, index, program), (with_ids_only, _, _) in pairs:
        vectors = {one.vector.name: one.vector for one in used if one.document is document}
        adapters = {one.adapter.name: one.adapter for one in loaded if one.document is document}
        ctx = Context(program.name, program.conflict, model)
        try:
            graph = build(with_ids_only, index, vectors, model.num_layers, adapters)
            stages = run_passes(graph, ctx)
        except IntervError as error:
            errors.append(error)
            continue
        yield CompiledProgram(program.name, document, index, stages)
