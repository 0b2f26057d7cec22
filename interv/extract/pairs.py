"""Read contrastive pairs: JSON Lines, or two text files whose lines belong together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interv.errors import IntervError, Source, Span, raise_all, suggest
from interv.files import MIB, read_regular

FIELDS = ("positive", "negative", "prompt")
MOST_ERRORS = 8
LARGEST_BYTES = 256 * MIB


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that differ in what the direction shall mean.

    With a `prompt` both are answers to it. `line` is where the pair stands, from 1.
    """

    positive: str
    negative: str
    prompt: str | None = None
    line: int = 0


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """Read `{"positive": …, "negative": …}` objects, one a line, all or none with a "prompt".

    Empty lines are skipped. Raises E280 where the file cannot be read or holds nothing, E281 at
    each line that is wrong.
    """
    source = Source(str(path), _text(path))
    pairs, errors = [], []
    for number, start, line in _lines(source.text):
        if line.strip():
            try:
                pairs.append(_pair(line, number, Span(source, start, start + len(line))))
            except IntervError as error:
                errors.append(error)
    _raise(errors)
    if not pairs:
        raise _empty(path)
    _raise(_mixed(pairs, source))
    return tuple(pairs)


def read_sides(positive: Path, negative: Path) -> tuple[Pair, ...]:
    """Read two text files, a text a line; line i of one belongs to line i of the other.

    Raises E280 where a file cannot be read or holds nothing, E281 at an empty line, E282 for
    different numbers of lines.
    """
    paths = (positive, negative)
    sides = [_side(path) for path in paths]
    if len(sides[0]) != len(sides[1]):
        counts = [f"{len(side)} in '{path}'" for side, path in zip(sides, paths, strict=True)]
        raise IntervError(
            "E282",
            f"the two files have different numbers of lines: {' and '.join(counts)}",
            helps=("line i of the first belongs to line i of the second",),
        )
    lines = enumerate(zip(*sides, strict=True), 1)
    return tuple(Pair(one, other, line=number) for number, (one, other) in lines)


def pairs_digest(pairs: Sequence[Pair]) -> str:
    """Return the sha256 of the texts in their order, whatever kind of file they came from."""
    texts = [[pair.prompt, pair.positive, pair.negative] for pair in pairs]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def _text(path: Path) -> str:
    try:
        text = read_regular(path, LARGEST_BYTES).decode("utf-8")
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise IntervError("E280", f"'{path}' is not UTF-8: byte {error.start}") from error
    except OSError as error:
        folder = path.parent
        missing = isinstance(error, FileNotFoundError) and folder.is_dir()
        near = [str(one) for one in folder.iterdir()] if missing else []
        reason = error.strerror or str(error)
        raise IntervError(
            "E280", f"'{path}' cannot be read: {reason}", helps=suggest(str(path), near)
        ) from error


def _lines(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield number, place and text of every line."""
    start = 0
    # Not `splitlines`, which also breaks at signs that may stand inside a text.
    for number, line in enumerate(text.split("\n"), 1):
        yield number, start, line.removesuffix("\r")
        start += len(line) + 1


def _pair(line: str, number: int, span: Span) -> Pair:
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        place = Span(span.source, span.start + error.pos, span.start + error.pos + 1)
        raise IntervError("E281", f"line {number} is not JSON", place, error.msg) from error
    except RecursionError as error:
        raise IntervError("E281", f"line {number} is nested too deeply", span) from error
    except ValueError as error:
        raise IntervError("E281", f"line {number} holds a number that is too long", span) from error
    if not isinstance(data, dict):
        example = '{"positive": "I am glad.", "negative": "I am sad."}'
        raise IntervError("E281", f"line {number} is no pair", span, helps=(f"write {example}",))
    raise_all(list(_faults(data, number, span)))
    return Pair(data["positive"], data["negative"], data.get("prompt"), number)


def _faults(data: Mapping[str, object], number: int, span: Span) -> Iterator[IntervError]:
    for name in data:
        if name not in FIELDS:
            yield IntervError(
                "E281",
                f"line {number}: '{name}' is not a field",
                span,
                notes=(f"fields: {', '.join(FIELDS)}",),
                helps=suggest(name, FIELDS),
            )
    for name in FIELDS:
        value = data.get(name)
        if name not in data:
            if name != "prompt":
                yield IntervError("E281", f"line {number} has no '{name}'", span)
        elif not isinstance(value, str):
            yield IntervError("E281", f"line {number}: '{name}' is not a text", span)
        elif not value.strip():
            yield IntervError("E281", f"line {number}: '{name}' is empty", span)
    if data.get("positive") == data.get("negative") and isinstance(data.get("positive"), str):
        yield IntervError("E281", f"line {number}: both texts are the same", span)


def _mixed(pairs: Sequence[Pair], source: Source) -> list[IntervError]:
    """Refuse texts of which some are answers: their last tokens are not comparable."""
    bare = [pair.line for pair in pairs if pair.prompt is None]
    if not bare or len(bare) == len(pairs):
        return []
    start = {number: place for number, place, _ in _lines(source.text)}[bare[0]]
    message = f"line {bare[0]} has no 'prompt', other lines have one"
    span = Span(source, start, start + 1)
    return [IntervError("E281", message, span, helps=("give all lines a prompt, or none",))]


def _side(path: Path) -> list[str]:
    text = _text(path).rstrip("\r\n")
    if not text.strip():
        raise _empty(path)
    source, errors, found = Source(str(path), text), [], []
    for number, start, line in _lines(text):
        found.append(line)
        if not line.strip():
            span = Span(source, start, start + 1)
            errors.append(IntervError("E281", f"line {number} is empty", span))
    _raise(errors)
    return found


def _empty(path: Path) -> IntervError:
    return IntervError("E280", f"'{path}' holds no texts")


def _raise(errors: list[IntervError]) -> None:
    if len(errors) > MOST_ERRORS:
        left = len(errors) - MOST_ERRORS
        errors = [*errors[:MOST_ERRORS], IntervError("E281", f"{left} more lines are wrong")]
    raise_all(errors)
