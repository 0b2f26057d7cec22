"""Load documents: `.interv` text, JSON or YAML; and refuse by name what is not built yet."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ValidationError

from interv.data import parse_json, parse_yaml
from interv.document.checks import check_document
from interv.document.document import Document
from interv.document.spec import Spec
from interv.document.validation import faults
from interv.errors import IntervError, Source, by_place, each, raise_all
from interv.files import read_text

SUFFIXES = (".interv", ".json", ".yaml", ".yml")
LARGEST_BYTES = 4 * 1024 * 1024


def load_document(path: str | Path) -> Document:
    """Load a document by its suffix; paths in it are relative to its folder.

    Raises E200 where the file cannot be read, E1xx and E2xx for what is wrong in it.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        notes = (f"suffixes: {', '.join(SUFFIXES)}",)
        raise IntervError("E200", f"'{path}' is not a document by its suffix", notes=notes)
    text = read_text(path, LARGEST_BYTES)
    if path.suffix == ".interv":
        return load_text(text, str(path), path.parent)
    parse = parse_json if path.suffix == ".json" else parse_yaml
    return load_data(parse(text, str(path)), str(path), path.parent)


def load_documents(files: Iterable[str | Path]) -> list[Document]:
    """Load documents to compile: `load_document` and `refuse_unsupported` for each.

    Raises the errors of all files together.
    """
    documents, errors = [], []
    for file in files:
        try:
            document = load_document(file)
            refuse_unsupported(document)
            documents.append(document)
        except IntervError as error:
            errors.append(error)
    raise_all(errors)
    return documents


def load_text(text: str, name: str = "<text>", root: Path | None = None) -> Document:
    """Load a document from text; paths in it are relative to `root`, else to here."""
    from interv.dsl.read import read_document

    return read_document(Source(name, text), root or Path.cwd())


def load_data(
    data: object,
    name: str = "<spec>",
    root: Path | None = None,
    declared: Collection[str] = (),
) -> Document:
    """Load a document from plain data, as JSON and YAML give it.

    Raises E104 to E212; each error names the path of the field.
    """
    if not isinstance(data, dict):
        found = type(data).__name__
        raise IntervError("E110", f"'{name}' is not a document", notes=(f"found: {found}",))
    if "interv" not in data:
        helps = ("add the field 'interv' with the value 1",)
        raise IntervError("E104", f"'{name}' does not say its version", helps=helps)
    try:
        spec = Spec.model_validate(data)
    except ValidationError as refused:
        found_faults = [error for _, error in faults(refused, data, lambda _: None)]
        raise_all([_in_file(error, name) for error in found_faults])
        raise AssertionError("a validation error without errors") from refused
    return from_spec(spec, name, root, declared)


def from_spec(
    spec: Spec,
    name: str = "<spec>",
    root: Path | None = None,
    declared: Collection[str] = (),
) -> Document:
    """Check a spec that was built in Python, and give it the folder its paths start from.

    `declared` are vectors that are known without a declaration in it.
    """
    document = Document(spec, root or Path.cwd(), name)
    check_document(document, declared=declared)
    return document


def dump_json(spec: Spec) -> str:
    """Print a spec as JSON; fields that equal their default are left out."""
    return json.dumps(plain_data(spec), indent=2, ensure_ascii=False) + "\n"


def dump_yaml(spec: Spec) -> str:
    """Print a spec as YAML; fields that equal their default are left out."""
    import yaml

    # Escapes beyond ASCII: YAML folds some of those characters into spaces when it reads.
    return str(yaml.safe_dump(plain_data(spec), sort_keys=False))


def plain_data(spec: Spec) -> dict[str, object]:
    """Return a spec as dicts, lists and scalars, without the fields that equal their default."""
    return {"interv": 1, **_fields(spec)}


def _fields(node: BaseModel) -> dict[str, object]:
    # `op` and `kind` tell the members of a union apart, so they stay.
    fields = type(node).model_fields
    return {
        name: _plain(value)
        for name, value in node
        if name in ("op", "kind") or fields[name].is_required() or value != fields[name].default
    }


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return _fields(value)
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def refuse_unsupported(document: Document) -> None:
    """Raise what a document uses that is not there.

    E27x for sinks, E295 to E298 for KV policies.
    """
    raise_all(sorted(_unsupported(document), key=by_place))


def _unsupported(document: Document) -> Iterator[IntervError]:
    spec = document.spec
    for i, sink in enumerate(spec.sinks):
        from interv.sinks.known import check_sink

        yield from check_sink(sink, document, ("sinks", i))
    if spec.kv is not None:
        yield from _kv_faults(document)


def _kv_faults(document: Document) -> Iterator[IntervError]:
    from interv.kv.settings import settings_of

    try:
        settings_of(document)
    except IntervError as error:
        yield from each(error)


def _in_file(error: IntervError, name: str) -> IntervError:
    places = [note for note in error.notes if note.startswith("in ")]
    others = [note for note in error.notes if not note.startswith("in ")]
    place = f"in {name}: {places[0].removeprefix('in ')}" if places else f"in {name}"
    return IntervError(error.code, error.message, notes=(place, *others), helps=error.helps)
