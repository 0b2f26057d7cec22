"""Read contrastive pairs: JSON Lines, a JSON array, or two files whose lines belong together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interv.errors import IntervError, Source, Span, each, raise_all, suggest
from interv.extract.pair_fields import OURS, faults, field_set
from interv.extract.pair_items import Item, items, split_lines
from interv.files import MIB, read_regular

MOST_ERRORS = 8
LARGEST_BYTES = 256 * MIB


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that differ in what the direction shall mean.

    With a `prompt` both are answers to it. `line` is where the pair stands, from 1: a line, or in
    an array which `noun` it is.
    """

    positive: str
    negative: str
    prompt: str | None = None
    line: int = 0
    noun: str = "line"

    @property
    def where(self) -> str:
        """Return where the pair stands, in words."""
        return f"{self.noun} {self.line}"


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """Read `{"positive": …, "negative": …}` objects, one a line or in one array.

    The fields may be those of CAA or steering-vectors too, and two lists those of EasySteer. All
    have a prompt, or none. Empty lines are skipped. Raises E280 where the file cannot be read or
    holds nothing, E281 at each pair that is wrong, E282 for lists of different lengths.
    """
    source = Source(str(path), _text(path))
    pairs, errors, spans = [], [], {}
    for item in items(source):
        if isinstance(item, IntervError):
            errors.append(item)
            continue
        try:
            pairs.append(pair := _pair(item))
            spans[pair.line] = item.span
        except IntervError as error:
            errors += each(error)
    _raise(errors)
    if not pairs:
        raise _empty(path)
    _raise(_mixed(pairs, spans))
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


def _pair(item: Item) -> Pair:
    data = item.value
    if isinstance(data, list) and item.where.startswith("pair") and len(data) == 2:
        data = dict(zip(OURS.fields, data, strict=False))
    if not isinstance(data, dict):
        example = '{"positive": "I am glad.", "negative": "I am sad."}'
        message = f"{item.where} is no pair"
        raise IntervError("E281", message, item.span, helps=(f"write {example}",))
    used = field_set(data)
    raise_all(list(faults(data, used, item.where, item.span)))
    noun = item.where.partition(" ")[0]
    texts = (data[used.positive], data[used.negative], data.get(used.prompt))
    return Pair(*texts, item.number, noun)


def _mixed(pairs: Sequence[Pair], spans: Mapping[int, Span]) -> list[IntervError]:
    """Refuse texts of which some are answers: their last tokens are not comparable."""
    bare = [pair for pair in pairs if pair.prompt is None]
    if not bare or len(bare) == len(pairs):
        return []
    noun, where = bare[0].noun, bare[0].where
    message = f"{where} has no 'prompt', other {noun}s have one"
    start = spans[bare[0].line].start
    span = Span(spans[bare[0].line].source, start, start + 1)
    return [IntervError("E281", message, span, helps=(f"give all {noun}s a prompt, or none",))]


def _side(path: Path) -> list[str]:
    text = _text(path).rstrip("\r\n")
    if not text.strip():
        raise _empty(path)
    source, errors, found = Source(str(path), text), [], []
    for number, start, line in split_lines(text):
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
