"""Check what pydantic cannot: names that refer to nothing, empty ranges, empty selectors.

The same checks hold for text, JSON, YAML and specs built in Python.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import TypeAlias

from interv.document.document import Document, SpecPath
from interv.document.gates import gate_faults
from interv.document.marker_faults import ids_of, marker_faults
from interv.document.position_checks import list_faults, position_faults
from interv.document.positions import ends_of, merged
from interv.document.selectors import atoms, negative_generated, satisfiable, selector_text
from interv.document.spec import (
    And,
    Apply,
    At,
    Cap,
    Capture,
    Edit,
    LayerRange,
    Not,
    Or,
    Positions,
    Replace,
    Rotate,
    Selector,
    SiteRef,
    Slice,
    Statement,
    Stride,
)
from interv.document.token_texts import could_match, leaves
from interv.document.vector_options import vector_faults
from interv.document.wording import item_text, list_names, path_notes
from interv.errors import IntervError, Span, raise_all, suggest

# The runtime keeps layers, positions and ids in 32 bits, scalars in float32.
LARGEST_INT = 2**31 - 1
LARGEST_FLOAT = 3.4028234663852886e38
# Deciding emptiness and overlap is cubic in the parts of a selector.
DEEPEST_SELECTOR = 32
MOST_PARTS = 64
OFF = "off"


def check_document(
    document: Document, broken: Collection[str] = (), declared: Collection[str] = ()
) -> None:
    """Raise every E2xx fault of a document, in the order of its parts.

    Names in `broken` are taken for declared: their declarations were refused already. `declared`
    are vectors that are there without a declaration in the document.
    """
    raise_all(list(find_faults(document, broken, declared)))


def find_faults(
    document: Document, broken: Collection[str] = (), declared: Collection[str] = ()
) -> Iterator[IntervError]:
    """Yield every E2xx fault of a document, in the order of its parts."""
    spec = document.spec
    known = _declared(document, declared, broken)
    yield from vector_faults(document)
    yield from _reserved(document)
    for i, program in enumerate(spec.programs):
        for j, statement in enumerate(program.statements):
            path: SpecPath = ("programs", i, "statements", j)
            yield from _references(document, path, statement, known, broken)
            yield from _numbers(document, path, statement)
            yield from gate_faults(document, path, statement)
            yield from _selectors(document, path, statement)
    yield from _options(document)
    if spec.default is not None:
        programs = known["program"]
        yield from _unknown(document, ("default",), "program", spec.default, programs, broken)


def _reserved(document: Document) -> Iterator[IntervError]:
    for i, program in enumerate(document.spec.programs):
        if program.name == OFF:
            yield IntervError(
                "E212",
                f"'{OFF}' is not free as the name of a program",
                document.span("programs", i, "name"),
                "reserved",
                notes=("a request says 'off' to be left unedited",),
            )


# What is declared under each noun, in the order of the document.
_Known: TypeAlias = Mapping[str, Mapping[str, None]]


def _declared(document: Document, vectors: Collection[str], broken: Collection[str]) -> _Known:
    """Return the names of a document, found once for all of its statements."""
    spec = document.spec
    found = {
        "vector": [*(one.name for one in spec.vectors), *vectors],
        "adapter": [one.name for one in spec.adapters],
        "sink": [one.name for one in spec.sinks],
        "program": [one.name for one in spec.programs],
    }
    return {
        noun: dict.fromkeys(name for name in names if name not in broken)
        for noun, names in found.items()
    }


def _references(
    document: Document,
    path: SpecPath,
    statement: Statement,
    known: _Known,
    broken: Collection[str],
) -> Iterator[IntervError]:
    vectors = known["vector"]
    if isinstance(statement, Capture):
        yield from _unknown(document, (*path, "to"), "sink", statement.to, known["sink"], broken)
        return
    if isinstance(statement, Apply):
        name = statement.adapter
        yield from _unknown(document, (*path, "adapter"), "adapter", name, known["adapter"], broken)
    else:
        name = statement.vector
        yield from _unknown(document, (*path, "vector"), "vector", name, vectors, broken)
    if isinstance(statement, Replace) and statement.by is not None:
        yield from _unknown(document, (*path, "by"), "vector", statement.by, vectors, broken)
        yield from _concepts(document, path, statement)
    if isinstance(statement, Rotate):
        where = (*path, "towards")
        yield from _unknown(document, where, "vector", statement.towards, vectors, broken)
        yield from _plane(document, path, statement)
    if statement.gate is not None:
        where = (*path, "gate", "vector")
        yield from _unknown(document, where, "vector", statement.gate.vector, vectors, broken)


_CODES = {"vector": "E202", "adapter": "E203", "sink": "E204", "program": "E205"}


def _unknown(
    document: Document,
    path: SpecPath,
    noun: str,
    name: str,
    known: Collection[str],
    broken: Collection[str],
) -> Iterator[IntervError]:
    if name in known or name in broken:
        return
    listed = f"{noun}s here: {list_names(known)}" if known else f"no {noun} is declared"
    yield IntervError(
        _CODES[noun],
        f"no {noun} is called '{name}'",
        document.span(*path),
        f"unknown {noun}",
        notes=(listed, *path_notes(document, path)),
        helps=suggest(name, known),
    )


def scaled_concept(span: Span | None, notes: tuple[str, ...] = ()) -> IntervError:
    """Return E107: of two concepts, one takes the place of the other at the size it has."""
    message = "replace … by has no scale"
    helps = ("leave it out; 'strength' says how much of the first vector is replaced",)
    return IntervError("E107", message, span, "not with 'by'", notes=notes, helps=helps)


def _concepts(document: Document, path: SpecPath, edit: Replace) -> Iterator[IntervError]:
    if edit.by == edit.vector:
        span, notes = document.span(*path, "by"), path_notes(document, (*path, "by"))
        message = f"vector '{edit.by}' is replaced by itself"
        yield IntervError("E206", message, span, "the same vector", notes=notes)
    if edit.scale != 1:
        where = (*path, "scale")
        yield scaled_concept(document.span(*where), path_notes(document, where))


def _plane(document: Document, path: SpecPath, edit: Rotate) -> Iterator[IntervError]:
    if edit.towards == edit.vector:
        where = (*path, "towards")
        yield IntervError(
            "E870",
            f"'{edit.vector}' and '{edit.towards}' span no plane to rotate in",
            document.span(*where),
            "the same vector",
            notes=path_notes(document, where),
            helps=("name a second direction that the stream turns towards",),
        )


def _numbers(document: Document, path: SpecPath, statement: Statement) -> Iterator[IntervError]:
    if isinstance(statement, Cap):
        yield from _bounds(document, path, statement)
    for name in ("scale", "low", "high", "strength"):
        yield from _float(document, (*path, name), getattr(statement, name, None))
    yield from _layers(document, (*path, "at"), statement.at)
    if isinstance(statement, Edit) and statement.gate is not None:
        gate = statement.gate
        for name in ("sharpness", "threshold", "above", "below"):
            yield from _float(document, (*path, "gate", name), getattr(gate, name))
        if gate.site is not None:
            yield from _layers(document, (*path, "gate", "site"), gate.site)
    if isinstance(statement, Capture):
        yield from _integer(document, (*path, "rank"), statement.rank)


def _bounds(document: Document, path: SpecPath, cap: Cap) -> Iterator[IntervError]:
    place = path_notes(document, path)
    if cap.low is None and cap.high is None:
        message, span = "this cap has no bound", document.span(*path, "in")
        helps = ("give at least one: in [, 2.5]",)
        yield IntervError("E208", message, span, "both ends are open", notes=place, helps=helps)
    elif cap.low is not None and cap.high is not None and cap.low > cap.high:
        message = f"the lower bound {cap.low:g} is above the upper bound {cap.high:g}"
        yield IntervError("E208", message, document.span(*path, "in"), "empty range", notes=place)


def _float(document: Document, path: SpecPath, value: float | None) -> Iterator[IntervError]:
    if value is not None and abs(value) > LARGEST_FLOAT:
        yield _too_large(document, path, f"{value:g}", "a number is at most 3.4e38 (float32)")


def _integer(document: Document, path: SpecPath, value: int | None) -> Iterator[IntervError]:
    if value is not None and abs(value) > LARGEST_INT:
        yield _too_large(document, path, str(value), f"a whole number is at most {LARGEST_INT}")


def _too_large(document: Document, path: SpecPath, value: str, note: str) -> IntervError:
    notes = (note, *path_notes(document, path))
    return IntervError(
        "E105", f"{value} is too large", document.span(*path), "too large", notes=notes
    )


def _layers(document: Document, path: SpecPath, place: SiteRef) -> Iterator[IntervError]:
    for i, layer in enumerate(place.layers):
        where = (*path, "layers", i)
        if isinstance(layer, int):
            yield from _integer(document, where, layer)
        elif isinstance(layer, LayerRange):
            yield from _integer(document, where, layer.first)
            yield from _integer(document, where, layer.last)
            if layer.first > layer.last and (layer.first < 0) == (layer.last < 0):
                yield IntervError(
                    "E208",
                    f"{item_text(layer)} is an empty range of layers",
                    document.span(*where),
                    "empty range",
                    notes=path_notes(document, where),
                    helps=(f"did you mean '{layer.last}..{layer.first}'?",),
                )


def _selectors(document: Document, path: SpecPath, statement: Statement) -> Iterator[IntervError]:
    field = "tokens" if isinstance(statement, Capture) else "when"
    selector: Selector = getattr(statement, field)
    where = (*path, field)
    deep = _depth(selector) > DEEPEST_SELECTOR
    # Positions that an `or` lists are one part, as in a list.
    if deep or len(list(atoms(one := merged(selector)))) > MOST_PARTS:
        limits = f"{MOST_PARTS} parts, nested {DEEPEST_SELECTOR} levels deep"
        yield IntervError(
            "E109",
            "this selector is too large",
            document.span(*where),
            "too large",
            notes=(f"a selector has at most {limits}", *path_notes(document, where)),
        )
        return
    faults = list(_selector_faults(document, where, selector))
    yield from faults
    if not faults:
        long = [fault for leaf in atoms(one) for fault in list_faults(document, where, leaf)]
        yield from long or _never(document, where, one, selector)


def _never(
    document: Document, path: SpecPath, one: Selector, written: Selector
) -> Iterator[IntervError]:
    """Yield an error where `one`, which is `written` shortly, can match nothing or is too large."""
    try:
        if not could_match(one):
            yield _empty(document, path, written)
    except IntervError as error:
        notes = (*error.notes, *path_notes(document, path))
        span = document.span(*path)
        yield IntervError(error.code, error.message, span, notes=notes, helps=error.helps)


def _selector_faults(
    document: Document, path: SpecPath, selector: Selector
) -> Iterator[IntervError]:
    for where, leaf in leaves(path, selector):
        numbers = [leaf.index] if isinstance(leaf, At) else []
        numbers += [leaf.start or 0, leaf.stop or 0] if isinstance(leaf, Slice | Stride) else []
        numbers += [leaf.step] if isinstance(leaf, Stride) else []
        numbers += (
            [n for one in leaf.items for n in ends_of(one)] if isinstance(leaf, Positions) else []
        )
        numbers += [one for one in ids_of(leaf) if isinstance(one, int)]
        large = [error for n in dict.fromkeys(numbers) for error in _integer(document, where, n)]
        yield from large
        wrong = list(marker_faults(document, where, leaf))
        yield from wrong
        if wrong:
            continue
        if odd := list(position_faults(document, where, leaf)) if not large else []:
            yield from odd
        elif negative_generated(leaf):
            yield IntervError(
                "E210",
                f"'{selector_text(leaf)}' counts from an end that is not known yet",
                document.span(*where),
                "the length of the output is unknown",
                notes=path_notes(document, where),
                helps=("count generated tokens from 0: generated[0:16]",),
            )
        elif not satisfiable(leaf):
            yield _empty(document, where, leaf)


def _empty(document: Document, path: SpecPath, selector: Selector) -> IntervError:
    return IntervError(
        "E209",
        f"no token can ever match '{selector_text(selector)}'",
        document.span(*path),
        "never matches",
        notes=path_notes(document, path),
    )


def _depth(selector: Selector) -> int:
    match selector:
        case Not():
            return 1 + _depth(selector.term)
        case And() | Or():
            return 1 + max(_depth(term) for term in selector.terms)
        case _:
            return 1


def _options(document: Document) -> Iterator[IntervError]:
    spec = document.spec
    owners: list[tuple[SpecPath, tuple[tuple[str, object], ...]]] = [
        (("sinks", i), sink.options) for i, sink in enumerate(spec.sinks)
    ]
    if spec.kv is not None:
        owners.append((("kv",), spec.kv.options))
    for path, options in owners:
        seen: set[str] = set()
        for k, (name, value) in enumerate(options):
            where = (*path, "options", k)
            before = len(seen)
            seen.add(name)
            if len(seen) == before:
                yield IntervError(
                    "E206", f"option '{name}' is given twice", document.span(*where), "again"
                )
            if isinstance(value, float) and not math.isfinite(value):
                yield IntervError(
                    "E105", f"option '{name}' is not a finite number", document.span(*where)
                )
