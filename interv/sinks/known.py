"""The kinds of sinks: the built-in ones, and what other packages offer as entry points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from interv.document.document import Document, SpecPath
from interv.document.spec import SinkDecl
from interv.document.wording import path_notes
from interv.errors import IntervError, raise_all, suggest
from interv.sinks.base import Sink, SinkOptions

GROUP = "interv.sinks"
# There also where the package runs without its installed metadata.
BUILT_IN = {
    "filesystem": "interv.sinks.filesystem:Filesystem",
    "memory": "interv.sinks.memory:Memory",
}


def kinds() -> Mapping[str, tuple[EntryPoint, ...]]:
    """Return where the class of each kind is; several where packages offer one name."""
    found = {name: (EntryPoint(name, home, GROUP),) for name, home in BUILT_IN.items()}
    for entry in sorted(entry_points(group=GROUP), key=lambda one: (one.name, one.value)):
        if entry.name not in BUILT_IN and entry.value not in _homes(found.get(entry.name, ())):
            found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def check_sink(decl: SinkDecl, document: Document, path: SpecPath) -> list[IntervError]:
    """Return what is wrong with a declaration at `path` of a document; nothing is opened.

    E270 for the kind, E271 for the options, E272 for options that cannot work on this machine.
    """
    try:
        sink = _sink_class(decl, document, path)
    except IntervError as error:
        return [error]
    given, errors = _given(decl, sink, document, path)
    if errors:
        return errors
    try:
        options = sink.Options.model_validate(given)
    except ValidationError as refused:
        return [*_refusals(refused, decl, sink, document, path)]
    for name, reason in sink.faults(options, document.root):
        message = f"option '{name}' of {decl.kind} cannot be used here: {reason}"
        where = _place(decl, sink, path, name)
        errors.append(_error("E272", message, document, where, "cannot be used"))
    return errors


def make_sink(decl: SinkDecl, root: Path, **more: Any) -> Sink:
    """Open the sink that a declaration names; relative paths in it are under `root`.

    `more` goes to the class behind the options: `folder` of a memory sink. Raises E270 to E272 as
    `check_sink` finds them, and what the class raises where it cannot open (E550 for ours).
    """
    from interv.document.spec import Spec

    document = Document(Spec(sinks=(decl,)), root)
    path: SpecPath = ("sinks", 0)
    raise_all(check_sink(decl, document, path))
    sink = _sink_class(decl, document, path)
    given, _ = _given(decl, sink, document, path)
    return sink(sink.Options.model_validate(given), root, **more)


def _homes(entries: tuple[EntryPoint, ...]) -> set[str]:
    return {entry.value for entry in entries}


def _sink_class(decl: SinkDecl, document: Document, path: SpecPath) -> type[Sink]:
    known, where = kinds(), (*path, "kind")
    entries = known.get(decl.kind, ())
    if not entries:
        message, notes = f"no kind of sink is called '{decl.kind}'", (f"kinds: {_list(known)}",)
        helps = suggest(decl.kind, known)
        raise _error("E270", message, document, where, "unknown kind", notes, helps)
    if len(entries) > 1:
        message = f"several packages offer a kind of sink called '{decl.kind}'"
        notes = (f"offered by: {_list(_homes(entries))}",)
        raise _error("E270", message, document, where, "which one?", notes)
    try:
        loaded = entries[0].load()
    except Exception as error:  # the code of another package
        message = f"the kind of sink '{decl.kind}' cannot be loaded"
        notes = (f"{entries[0].value}: {type(error).__name__}: {error}",)
        raise _error("E270", message, document, where, "cannot be loaded", notes) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Sink) and _has_options(loaded)):
        message = f"what '{entries[0].value}' offers as '{decl.kind}' is not a kind of sink"
        notes = ("a kind derives from interv.sinks.base.Sink, its Options from SinkOptions",)
        raise _error("E270", message, document, where, "not a sink", notes)
    return loaded


def _has_options(sink: type[Sink]) -> bool:
    return isinstance(sink.Options, type) and issubclass(sink.Options, SinkOptions)


def _given(
    decl: SinkDecl, sink: type[Sink], document: Document, path: SpecPath
) -> tuple[dict[str, Any], list[IntervError]]:
    """Return the options by name, those without name under the names they stand for."""
    given: dict[str, Any] = {}
    errors = []
    for k, value in enumerate(decl.args):
        if k < len(sink.positional):
            given[sink.positional[k]] = value
            continue
        message = f"{decl.kind}(…) has {_count(len(sink.positional))} without a name, not {k + 1}"
        where = (*path, "args", k)
        errors.append(_error("E271", message, document, where, "one too many", _options(sink)))
    for k, (name, value) in enumerate(decl.options):
        if name in given:
            message, where = f"option '{name}' is given twice", (*path, "options", k)
            errors.append(_error("E271", message, document, where, "again"))
        given[name] = value
    return given, errors


def _count(count: int) -> str:
    return {0: "no option", 1: "one option"}.get(count, f"{count} options")


def _refusals(
    refused: ValidationError, decl: SinkDecl, sink: type[Sink], document: Document, path: SpecPath
) -> Iterator[IntervError]:
    for fault in refused.errors():
        name = str(fault["loc"][0]) if fault["loc"] else ""
        where, known = _place(decl, sink, path, name), tuple(sink.Options.model_fields)
        if fault["type"] == "extra_forbidden":
            message, label = f"{decl.kind} has no option '{name}'", "unknown option"
            helps = suggest(name, known)
            yield _error("E271", message, document, where, label, _options(sink), helps)
        elif fault["type"] == "missing":
            message, label = f"{decl.kind} needs the option '{name}'", "missing"
            yield _error("E271", message, document, where, label, _options(sink))
        else:
            what, reason = (f"option '{name}'" if name else "options"), str(fault["msg"])
            message = f"{what} of {decl.kind}: {reason[0].lower()}{reason[1:]}"
            yield _error("E271", message, document, where, "cannot be this")


def _options(sink: type[Sink]) -> tuple[str, ...]:
    return (f"options: {', '.join(sink.Options.model_fields)}",)


def _place(decl: SinkDecl, sink: type[Sink], path: SpecPath, name: str) -> SpecPath:
    """Return the path of an option's value in the document, or of the declaration."""
    for k, (option, _) in enumerate(decl.options):
        if option == name:
            return (*path, "options", k)
    if name in sink.positional[: len(decl.args)]:
        return (*path, "args", sink.positional.index(name))
    return path


def _list(names: Mapping[str, object] | set[str]) -> str:
    return ", ".join(sorted(names))


def _error(
    code: str,
    message: str,
    document: Document,
    where: SpecPath,
    label: str,
    notes: tuple[str, ...] = (),
    helps: tuple[str, ...] = (),
) -> IntervError:
    notes = (*notes, *path_notes(document, where))
    return IntervError(code, message, document.span(*where), label, notes=notes, helps=helps)
