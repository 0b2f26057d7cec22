"""Split a file of pairs into its objects: one a line, one JSON array of them, or two lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from interv.errors import IntervError, Source, Span
from interv.extract.pair_fields import LISTS, OURS, FieldSet

_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"
_TOO_DEEP = "is nested too deeply"
_TOO_LONG = "holds a number that is too long"


@dataclass(frozen=True, slots=True)
class Item:
    """One pair as a file has it, and where: the line it is, or which of an array."""

    value: object
    where: str
    number: int
    span: Span


def items(source: Source) -> Iterator[Item | IntervError]:
    """Yield the pairs of a file, in its order, or E281 in place of what is not JSON."""
    start = len(source.text) - len(source.text.lstrip(_SPACE))
    whole = _whole(source.text, start)
    if isinstance(whole, list):
        yield from _array(source, start)
    elif isinstance(whole, dict):
        yield from _object(source, whole, start)
    elif source.text[start : start + 1] == "[" and source.text[start + 1 :].lstrip()[:1] == "{":
        yield _broken(source)
    else:
        yield from _lines(source)


def split_lines(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield number, place and text of every line."""
    start = 0
    # Not `splitlines`, which also breaks at signs that may stand inside a text.
    for number, line in enumerate(text.split("\n"), 1):
        yield number, start, line.removesuffix("\r")
        start += len(line) + 1


def _whole(text: str, start: int) -> object:
    """Return the one JSON value that a text is; None where it is none, or more than one."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return None if text[end:].strip(_SPACE) else value


def _broken(source: Source) -> IntervError:
    """Return what is wrong with an array that is not JSON."""
    try:
        json.loads(source.text)
    except json.JSONDecodeError as error:
        place = Span(source, error.pos, error.pos + 1)
        return IntervError("E281", f"'{source.name}' is not JSON", place, error.msg)
    except (ValueError, RecursionError):
        pass
    return IntervError("E281", f"'{source.name}' {_TOO_DEEP}")


def _array(source: Source, start: int) -> Iterator[Item]:
    """Yield the values of an array that was read as a whole before, with their places."""
    text, at, number = source.text, start + 1, 0
    while True:
        while text[at] in f"{_SPACE},":
            at += 1
        if text[at] == "]":
            return
        value, end = _DECODER.raw_decode(text, at)
        number += 1
        yield Item(value, f"pair {number}", number, Span(source, at, _line_end(text, at, end)))
        at = end


def _line_end(text: str, start: int, end: int) -> int:
    """Return where what is underlined ends: on the line that it begins on."""
    stop = text.find("\n", start, end)
    return end if stop < 0 else stop


def _object(source: Source, value: dict[str, object], start: int) -> Iterator[Item | IntervError]:
    """Yield the pairs of an object of two lists, or the one pair that an object is."""
    end = _line_end(source.text, start, len(source.text.rstrip(_SPACE)))
    span = Span(source, start, end)
    fields = LISTS if LISTS.positive in value or LISTS.negative in value else OURS
    sides = [value.get(fields.positive), value.get(fields.negative)]
    if fields is OURS and not all(isinstance(side, list) for side in sides):
        number = source.text.count("\n", 0, start) + 1
        yield Item(value, f"line {number}", number, span)
        return
    yield from _wrong_lists(value, fields, span)
    first, second = (side if isinstance(side, list) else [] for side in sides)
    if len(first) != len(second):
        yield IntervError(
            "E282",
            f"the two lists have different lengths: {len(first)} in '{fields.positive}' and "
            f"{len(second)} in '{fields.negative}'",
            helps=("text i of the first belongs to text i of the second",),
        )
        return
    for number, (one, other) in enumerate(zip(first, second, strict=True), 1):
        yield Item({"positive": one, "negative": other}, f"pair {number}", number, span)


def _wrong_lists(value: dict[str, object], known: FieldSet, span: Span) -> Iterator[IntervError]:
    sides = (known.positive, known.negative)
    for name in value:
        if name not in (*sides, *known.others):
            notes = (f"fields: {', '.join(sides)}",)
            yield IntervError("E281", f"'{name}' is not a field beside lists", span, notes=notes)
    for name in sides:
        if not isinstance(value.get(name), list):
            yield IntervError("E281", f"'{name}' is not a list of texts", span)


def _lines(source: Source) -> Iterator[Item | IntervError]:
    for number, start, line in split_lines(source.text):
        if not line.strip():
            continue
        where, span = f"line {number}", Span(source, start, start + len(line))
        try:
            yield Item(json.loads(line), where, number, span)
        except json.JSONDecodeError as error:
            place = Span(source, start + error.pos, start + error.pos + 1)
            yield IntervError("E281", f"{where} is not JSON", place, error.msg)
        except RecursionError:
            yield IntervError("E281", f"{where} {_TOO_DEEP}", span)
        except ValueError:
            yield IntervError("E281", f"{where} {_TOO_LONG}", span)
