"""A program that one request brings along: compiled at admission, onto what the engine has.

It may use the vectors that the engine's documents declare, at the sites that they splice. So it
is scalars, bank rows and selectors, like every other slot, and reads no file.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from interv.codegen.bundle import Bundle, Column
from interv.codegen.emit import column
from interv.data import parse_json
from interv.document.document import Document
from interv.document.markers import following
from interv.document.positions import merged
from interv.document.selectors import atoms
from interv.document.sites import Site
from interv.document.spec import Edit, Program, Selector
from interv.document.token_texts import Encode, resolve_texts
from interv.dsl.parser import Limits
from interv.dsl.read import read_document
from interv.errors import IntervError, Source, raise_all
from interv.load import load_data, refuse_unsupported
from interv.model import ModelFacts
from interv.passes.build import build
from interv.passes.graph.context import Context
from interv.passes.graph.directions import Constant, Vector
from interv.passes.graph.ir import Origin
from interv.passes.graph.layer_ranges import Sites
from interv.passes.pipeline import INLINE_PASSES, run_passes
from interv.passes.place import columns_of, rounded_row, stores, updates
from interv.passes.placing.plan import MAX_SELECTORS
from interv.request.arguments import is_document

MOST_CHARACTERS = 64 * 1024
MOST_STATEMENTS = 256
# What a program may be made of: words and signs of a text, values of JSON.
MOST_ITEMS = 4096
# After each mistake a text is parsed anew.
LIMITS = Limits(tokens=MOST_ITEMS, failures=2)
# Deciding which selectors overlap is cubic in their parts; a request may take this long, not more.
MOST_PARTS = 64
# Under 'conflict priority' each selector grows by those before it.
MOST_PARTS_IN_TURN = 24
# What can have come before a token is walked through for each pair of selectors that ask.
MOST_FOLLOWED = 8
_NAME = "<request>"
_PLAIN = tuple(one.name for one in fields(Column) if one.name != "origin")
_SELECTOR: TypeAdapter[Selector] = TypeAdapter(Selector)


@dataclass(frozen=True, slots=True)
class Inline:
    """A compiled inline program; its columns name selectors by their place in `selectors`."""

    columns: tuple[tuple[int, Column], ...]  # with the index of their site
    selectors: tuple[Selector, ...]
    kv: bool | None = None  # what it says of its request's cache; admission asks, so it stays here
    # Of named programs that were put together: for each column the one that it counts for, a place
    # in Bundle.programs.
    programs: tuple[int, ...] = ()

    def plain(self) -> list[Any]:
        """Return the program as numbers and texts."""
        columns = [[site, *(getattr(c, name) for name in _PLAIN)] for site, c in self.columns]
        found = [columns, [one.model_dump_json() for one in self.selectors]]
        return [*found, [*self.programs]] if self.programs else found

    @classmethod
    def of(cls, plain: Any) -> Inline:
        """Return the program that `plain` was made from."""
        columns = tuple((int(site), Column(*numbers)) for site, *numbers in plain[0])
        selectors = tuple(_SELECTOR.validate_json(one) for one in plain[1])
        return cls(columns, selectors, programs=tuple(plain[2]) if len(plain) > 2 else ())

    @property
    def digest(self) -> str:
        """Return the sha256 of what the program does."""
        return hashlib.sha256(json.dumps(self.plain()).encode()).hexdigest()


def is_inline(asked: object) -> bool:
    """Say whether a request means a whole program, not an expression over names."""
    return isinstance(asked, Mapping) or (isinstance(asked, str) and is_document(asked))


def inline_text(asked: str | Mapping[str, Any]) -> str:
    """Return a request's program as one text, which is equal for equal data.

    Raises IntervError E110 for data that JSON cannot hold.
    """
    if isinstance(asked, str):
        return asked
    try:
        return json.dumps(dict(asked), sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise IntervError("E110", f"'{_NAME}' cannot be written as JSON: {error}") from error


def compile_inline(
    asked: str | Mapping[str, Any],
    bundle: Bundle,
    vectors: Mapping[str, Vector],
    model: ModelFacts,
    encode: Encode | None,
) -> Inline:
    """Compile a request's own program.

    Raises IntervError: what documents raise (E1xx, E2xx, E4xx), E109 for one that is too large,
    E215 for declarations that a request may not make, E216 where it is not clear which program
    is meant, E408 for sites that the engine has not spliced, E409 for directions that it does not
    hold, E410, E411 and E416 for too many selectors, edits or gates.
    """
    document = resolve_texts(_read(asked, vectors), encode)
    index = _program(document)
    program = document.spec.programs[index]
    raise_all(list(_too_many(program, bundle)))
    graph = build(document, index, vectors, model.num_layers)
    ctx = Context(program.name, program.conflict, model)
    last = run_passes(graph, ctx, INLINE_PASSES)[-1].graph
    selectors: dict[Selector, int] = {}
    columns: list[tuple[int, Column]] = []
    places = {table.site: i for i, table in enumerate(bundle.sites)}
    kept = stores(last)
    errors = list(_too_many_gates(len(kept), bundle))
    for site, node in updates(last):
        if site not in places:
            errors.append(_not_spliced(site, node.meta["origins"][0], bundle))
            continue
        try:
            listed = list(columns_of(site, node, kept, _rows(bundle, places[site])))
        except _NewDirection as direction:
            errors.append(_not_held(str(direction), node.meta["origins"][0]))
            continue
        found = [
            column(one, selectors.setdefault(selector, len(selectors)), ())
            for one, selector in listed
        ]
        columns += [(places[site], one) for one in found]
    # Counted at the end: giving way makes selectors that nobody wrote.
    own = sum(1 for one in selectors if one not in bundle.selectors)
    if own > spare_bits(bundle):
        said = f"{own} different selectors are used, {spare_bits(bundle)} are possible"
        errors.append(IntervError("E410", said))
    raise_all(errors)
    return Inline(tuple(columns), tuple(selectors), program.kv)


def _read(asked: str | Mapping[str, Any], vectors: Mapping[str, Vector]) -> Document:
    text = inline_text(asked)
    if len(text) > MOST_CHARACTERS:
        said = f"an inline program has at most {MOST_CHARACTERS} characters, this one {len(text)}"
        raise IntervError("E109", said)
    if text.lstrip().startswith("{"):
        data = parse_json(text, _NAME)
        _check_items(data)
        document = load_data(data, _NAME, declared=tuple(vectors))
    else:
        document = read_document(Source(_NAME, text), Path.cwd(), tuple(vectors), LIMITS)
    # Before anything else is asked of what it declares: that may look for it.
    raise_all(list(_forbidden(document)))
    refuse_unsupported(document)
    return document


def _check_items(data: object) -> None:
    """Raise E109 for data of too many values; what is wrong in each would be looked into."""
    left, count = [data], 0
    while left:
        one = left.pop()
        count += 1
        if isinstance(one, dict | list):
            left += one.values() if isinstance(one, dict) else one
        if count + len(left) > MOST_ITEMS:
            raise IntervError("E109", f"an inline program has at most {MOST_ITEMS} values")


def _forbidden(document: Document) -> Iterator[IntervError]:
    spec = document.spec
    for i, one in enumerate(spec.vectors):
        yield IntervError(
            "E215",
            f"a request may not declare vector '{one.name}'",
            document.span("vectors", i),
            "reads a file",
            helps=["declare it in a document that the engine is started with"],
        )
    for part, noun in (("adapters", "adapter"), ("sinks", "sink")):
        for i, decl in enumerate(getattr(spec, part)):
            yield IntervError(
                "E215",
                f"a request may not declare {noun} '{decl.name}'",
                document.span(part, i),
                "reads a file" if noun == "adapter" else "writes files",
                helps=["declare it in a document that the engine is started with"],
            )
    if spec.conflict is not None:
        said = "a request may not state the policy for several programs"
        helps = ["state 'conflict' inside the program"]
        yield IntervError("E215", said, document.span("conflict"), "not here", helps=helps)
    if spec.kv is not None:
        said, helps = (
            "a request may not declare a KV policy",
            ["ask for the engine's, inside the program: kv on"],
        )
        yield IntervError("E215", said, document.span("kv"), "not here", helps=helps)
    statements = sum(len(program.statements) for program in spec.programs)
    if statements > MOST_STATEMENTS:
        said = f"an inline program has at most {MOST_STATEMENTS} statements, this one {statements}"
        yield IntervError("E109", said)


def _program(document: Document) -> int:
    names = [program.name for program in document.spec.programs]
    if document.spec.default is not None:
        return names.index(document.spec.default)
    if len(names) == 1:
        return 0
    raise IntervError(
        "E216",
        f"an inline document has one program, this one has {len(names)}",
        notes=[f"programs here: {', '.join(names)}"] if names else [],
        helps=[f"say which one applies: default {names[0]}"] if names else [],
    )


def _rows(bundle: Bundle, index: int) -> Any:
    rows = {row.tobytes(): i for i, row in enumerate(bundle.sites[index].bank)}

    def row(value: Constant) -> int:
        found = rows.get(rounded_row(value.array).tobytes())
        if found is None:
            raise _NewDirection(str(value))
        return found

    return row


class _NewDirection(Exception):
    """A direction that no bank holds."""


def _not_held(label: str, origin: Origin) -> IntervError:
    return IntervError(
        "E409",
        f"this needs a direction that the engine does not hold: {label}",
        origin.span,
        "computed from several vectors",
        helps=["put the program into a document that the engine is started with"],
    )


def _not_spliced(site: Site, origin: Origin, bundle: Bundle) -> IntervError:
    sites = [str(table.site) for table in bundle.sites]
    shown = ", ".join(sites[:8]) + (f" and {len(sites) - 8} more" if len(sites) > 8 else "")
    return IntervError(
        "E408",
        f"this engine has not spliced {site}",
        origin.span,
        "its graph is compiled already",
        notes=[f"sites that it has: {shown}"],
        helps=["use this site in a document that the engine is started with"],
    )


def _too_many(program: Program, bundle: Bundle) -> Iterator[IntervError]:
    """Find what would take long to compile, before anything is computed of it."""
    edits = [one for one in program.statements if isinstance(one, Edit)]
    parts = sum(len(list(atoms(merged(one)))) for one in {one.when for one in edits})
    most = MOST_PARTS_IN_TURN if program.conflict == "priority" else MOST_PARTS
    if parts > most:
        said = f"the selectors of an inline program have at most {most} parts together"
        yield IntervError("E109", f"{said}, these have {parts}")
    followed = {leaf for one in edits for leaf in following(one.when)}
    if len(followed) > MOST_FOLLOWED:
        said = f"an inline program follows markers in at most {MOST_FOLLOWED} different ways"
        yield IntervError("E109", f"{said}, this one in {len(followed)}")
    layers = max((len(one.at.layers) for one in edits), default=0)
    if layers > bundle.num_layers:
        said = f"a site lists at most the {bundle.num_layers} layers of the model"
        yield IntervError("E109", f"{said}, one here lists {layers}")
        return
    counts = Counter(site for one in edits for site in Sites(one.at, bundle.num_layers).expand())
    for site, count in counts.most_common(1):
        if count > bundle.width:
            said = f"this program has {count} edits at {site}, {bundle.width} are possible"
            yield IntervError("E411", said)


def _too_many_gates(count: int, bundle: Bundle) -> Iterator[IntervError]:
    if count > bundle.gates:
        said = f"{count} gates weigh edits of later sites, {bundle.gates} are possible"
        yield IntervError("E416", said)


def spare_bits(bundle: Bundle) -> int:
    """Return how many different selectors the inline programs of a step may have."""
    return MAX_SELECTORS - len(bundle.selectors)
