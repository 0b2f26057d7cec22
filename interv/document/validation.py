"""Turn raw data into pydantic models; what pydantic refuses becomes errors in our own words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from interv.document import spec as specs
from interv.document.document import SpecPath
from interv.document.foreign_sites import advice
from interv.document.sites import SITES
from interv.errors import IntervError, Label, Span, raise_all, suggest

Model = TypeVar("Model", bound=BaseModel)
Locate = Callable[[SpecPath], Span | None]

# The models by the word that tells them apart in the data, or by the field they stand in.
BY_OP: Mapping[str, type[BaseModel]] = {
    "steer": specs.Steer,
    "cap": specs.Cap,
    "ablate": specs.Ablate,
    "replace": specs.Replace,
    "rotate": specs.Rotate,
    "apply": specs.Apply,
    "capture": specs.Capture,
}
BY_FIELD: Mapping[str, type[BaseModel]] = {
    "vectors": specs.VectorDecl,
    "adapters": specs.AdapterDecl,
    "programs": specs.Program,
    "sinks": specs.SinkDecl,
    "kv": specs.KvPolicy,
    "at": specs.SiteRef,
    "site": specs.SiteRef,
    "gate": specs.Gate,
    "layers": specs.LayerRange,
    **dict.fromkeys(("mark", "start", "end"), specs.Token),
    "items": specs.PositionRange,
}
BY_KIND: Mapping[str, type[BaseModel]] = {
    "all": specs.Everything,
    "phase": specs.InPhase,
    "at": specs.At,
    "slice": specs.Slice,
    "stride": specs.Stride,
    "positions": specs.Positions,
    "token": specs.Token,
    "after": specs.After,
    "before": specs.Before,
    "between": specs.Between,
    "not": specs.Not,
    "and": specs.And,
    "or": specs.Or,
}
CHOICES: Mapping[str, tuple[str, str, str]] = {
    # field: what it is, how the list of alternatives is called, the code
    "name": ("a site", "sites here", "E201"),
    "conflict": ("a conflict policy", "policies", "E211"),
    "rows": ("a numbering", "numberings", "E211"),
    "keep": ("a way to keep rows", "ways", "E211"),
    "phase": ("a phase", "phases", "E211"),
    "op": ("a statement", "statements", "E211"),
    "kind": ("a selector", "selectors", "E211"),
}
_OUTSIDE = "a policy is declared outside of programs"
RANGES = {
    "strength": "0 to 1",
    "decay": "above 0, up to 1",
    "to": "-360 to 360",
    "sample": "above 0, up to 1",
    "rank": "1 and more",
    "step": "1 and more",
    "ids": "0 and more",
    "row": "0 and more",
}


def nowhere(path: SpecPath) -> Span | None:
    """Locate nothing: for data that has no text."""
    return None


def validate(
    model: type[Model], data: object, locate: Locate = nowhere, prefix: SpecPath = ()
) -> Model:
    """Build `model` from plain data.

    Raises E201 to E211 with every fault found, each at `locate(prefix + path)`; where that has
    no span, the error names the path of the field.
    """
    try:
        return model.model_validate(data)
    except ValidationError as refused:
        raise_all([error for _, error in faults(refused, data, locate, prefix)])
        raise AssertionError("a validation error without errors") from refused


def faults(
    refused: ValidationError, data: object, locate: Locate, prefix: SpecPath = ()
) -> Iterator[tuple[SpecPath, IntervError]]:
    """Yield what pydantic refused: the path of each fault in `data`, and its error."""
    found: dict[SpecPath, IntervError] = {}
    for detail in refused.errors(include_url=False):
        path, owner, value = _follow(data, detail)
        if path not in found:  # a union reports once for each of its members
            found[path] = _fault(detail, prefix + path, owner, value, locate)
    # A group whose members are refused is refused for lacking them: that says nothing new.
    around = {path[:end] for path in found for end in range(len(path))}
    yield from ((path, error) for path, error in found.items() if path not in around)


def _follow(data: object, detail: ErrorDetails) -> tuple[SpecPath, object, object]:
    """Return the path without pydantic's union tags, the object that holds it, and the value."""
    path: list[str | int] = []
    owner, value = data, data
    for part in detail["loc"]:
        inner = _child(value, part)
        if inner is not _NONE:
            path.append(part)
            owner, value = value, inner
    if detail["type"] in ("missing", "extra_forbidden") and path[-1:] != [detail["loc"][-1]]:
        path.append(detail["loc"][-1])
        owner = value
    if detail["type"].startswith("union_tag"):
        tag = "op" if detail["ctx"]["discriminator"] == "'op'" else "kind"
        owner, value = value, value.get(tag) if isinstance(value, Mapping) else value
        path.append(tag)
    return tuple(path), owner, value


_NONE = object()


def _child(value: object, part: str | int) -> object:
    if isinstance(value, Mapping):
        return value.get(part, _NONE)
    if isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
        return value[part]
    return _NONE


def _fault(
    detail: ErrorDetails, path: SpecPath, owner: object, value: object, locate: Locate
) -> IntervError:
    code, message, label, notes, helps = _words(detail, path, owner, value)
    span = locate(path)
    place = ".".join(str(part) for part in path)
    if span is None and place:
        notes = (f"in {place}", *notes)
    return IntervError(code, message, span, label, notes=notes, helps=helps)


Words = tuple[str, str, str, tuple[str, ...], tuple[str, ...]]


def _words(detail: ErrorDetails, path: SpecPath, owner: object, value: object) -> Words:
    field = next((part for part in reversed(path) if isinstance(part, str)), "document")
    kind, ctx = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return "E211", f"'{field}' is missing", "", (), ()
    if kind == "extra_forbidden":
        names = _fields(owner, path)
        notes = (f"fields here: {', '.join(names)}",) if names else ()
        return "E211", f"'{field}' is not a field", "not a field", notes, suggest(field, names)
    if kind == "union_tag_not_found":
        return "E211", f"'{field}' is missing", "", (), ()
    if kind in ("literal_error", "union_tag_invalid") and field in CHOICES:
        return _choice(field, str(value), ctx)
    if kind == "literal_error" and field == "interv":
        return "E104", f"version {value!s:.40} is not supported", "", ("versions: 1",), ()
    if kind == "string_pattern_mismatch":
        note = "a name is made of letters, digits and '_', and does not start with a digit"
        return "E211", f"'{value}' is not a name", "not a name", (note,), ()
    if kind == "finite_number":
        return "E105", f"{field} is not a finite number", "not finite", (), ()
    if kind == "over":
        helps = (f"say that it is meant to take away more than all: strength {value} over",)
        return "E207", f"strength {value} is out of range", "0 to 1", (), helps
    if kind.startswith("greater") and isinstance(owner, Mapping) and owner.get("over"):
        return "E207", f"{field} {value} is out of range", "0 and more", (), ()
    if kind.startswith(("greater", "less")) and field in RANGES:
        return "E207", f"{field} {value} is out of range", f"{RANGES[field]}", (), ()
    if kind.startswith("bool") and field == "kv":
        message = f"'kv' of a program is on or off, not {value!r:.80}"
        return "E211", message, "neither on nor off", (), (_OUTSIDE,)
    if kind == "value_error":
        return "E206", str(detail["msg"]).removeprefix("Value error, "), "", (), ()
    said = str(detail["msg"])
    return "E211", f"{field}: {said[:1].lower()}{said[1:]}", "", (f"found: {value!r:.80}",), ()


def _choice(field: str, value: str, ctx: Mapping[str, Any]) -> Words:
    noun, plural, code = CHOICES[field]
    listed = str(ctx.get("expected") or ctx.get("expected_tags"))
    known = SITES if field == "name" else tuple(listed.replace(" or ", ", ").split(", "))
    known = tuple(one.strip("'") for one in known)
    notes = (f"{plural}: {', '.join(known)}",)
    helps = (advice(value) if field == "name" else ()) or suggest(value, known)
    return code, f"'{value}' is not {noun}", f"not {noun}", notes, helps


def _fields(owner: object, path: SpecPath) -> tuple[str, ...]:
    """Return the fields that the object which holds a wrong field could have."""
    if not isinstance(owner, Mapping):
        return ()
    holder = next((part for part in reversed(path[:-1]) if isinstance(part, str)), None)
    model: type[BaseModel] | None
    if "op" in owner:
        model = BY_OP.get(str(owner["op"]))
    elif "kind" in owner and holder != "sinks":
        model = BY_KIND.get(str(owner["kind"]))
    else:
        model = specs.Spec if holder is None else BY_FIELD.get(holder)
    return tuple(model.model_fields) if model else ()


def named_twice(
    field: str, items: Iterable[tuple[str, SpecPath]], locate: Locate
) -> Iterator[IntervError]:
    """Yield an error for each name that `field` gives a second time."""
    first: dict[str, SpecPath] = {}
    for name, path in items:
        if name not in first:
            first[name] = path
            continue
        span, earlier = locate(path), locate(first[name])
        more = (Label(earlier, "first here"),) if earlier else ()
        yield IntervError("E206", f"{field} '{name}' is named twice", span, "again", more=more)
