"""The names under which tools keep the two texts of a pair, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from interv.errors import IntervError, Span, suggest


@dataclass(frozen=True, slots=True)
class FieldSet:
    """The fields of a pair as one tool has them; `others` say nothing about the texts."""

    tool: str
    positive: str
    negative: str
    prompt: str
    needs_prompt: bool = False
    others: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the fields that are read, the prompt last."""
        return tuple(name for name in (self.positive, self.negative, self.prompt) if name)


OURS = FieldSet("repeng", "positive", "negative", "prompt")
SETS = (
    OURS,
    FieldSet(
        "CAA",
        "answer_matching_behavior",
        "answer_not_matching_behavior",
        "question",
        needs_prompt=True,
        others=("statement", "label_confidence"),
    ),
    FieldSet(
        "steering-vectors",
        "positive_str",
        "negative_str",
        "",
        others=("read_positive_token_index", "read_negative_token_index"),
    ),
)
# EasySteer keeps all texts of a side in one list, in the config of an extraction.
LISTS = FieldSet(
    "EasySteer",
    "positive_samples",
    "negative_samples",
    "",
    others=(
        "config_name",
        "description",
        "display_name",
        "gpu_devices",
        "method",
        "model_path",
        "normalize",
        "output_path",
        "token_pos",
        "vector_name",
    ),
)


def field_set(data: Mapping[str, object]) -> FieldSet:
    """Return the set that an object has most fields of, ours where it has none of any."""
    return max(SETS, key=lambda one: len(set(one.fields) & set(data)))


def faults(
    data: Mapping[str, object], used: FieldSet, where: str, span: Span | None
) -> Iterator[IntervError]:
    """Yield E281 for each field that is unknown, missing, no text or empty."""
    known = set(used.fields)
    for name in data:
        if name not in used.fields and name not in used.others:
            message = f"{where}: '{name}' is not a field"
            notes = [f"fields: {', '.join(used.fields)}"]
            if not known & set(data):
                notes += [_set(one) for one in (*SETS[1:], LISTS)]
            helps = suggest(name, used.fields)
            yield IntervError("E281", message, span, notes=notes, helps=helps)
    for name in used.fields:
        value = data.get(name)
        if name not in data:
            if name != used.prompt or used.needs_prompt:
                yield IntervError("E281", f"{where} has no '{name}'", span)
        elif not isinstance(value, str):
            yield IntervError("E281", f"{where}: '{name}' is not a text", span)
        elif not value.strip():
            yield IntervError("E281", f"{where}: '{name}' is empty", span)
    texts = [data.get(used.positive), data.get(used.negative)]
    if isinstance(texts[0], str) and texts[0] == texts[1]:
        yield IntervError("E281", f"{where}: both texts are the same", span)


def _set(one: FieldSet) -> str:
    return f"or those of {one.tool}: {', '.join(one.fields)}"
