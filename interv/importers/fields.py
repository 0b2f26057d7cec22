"""Read a foreign file: bounded in size, JSON without surprises, every field by its kind.

A field that is not read is an error, so that nothing in a file is passed over.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interv.errors import IntervError, Source, Span, raise_all, suggest
from interv.files import check_regular, read_text, unreadable

# Directions as JSON numbers take up to 25 bytes each: this holds 80 layers of 8192 thrice.
LARGEST_BYTES = 64 * 1024 * 1024
LARGEST_LAYER = 99_999
LAYER = re.compile(r"0|[1-9][0-9]{0,4}")
LARGEST_ID = 2**31 - 1
SHOWN = 60


def read_json(path: Path) -> object:
    """Read a JSON file of at most 64 MiB.

    Raises E200 where it cannot be read, E110 for what is not JSON: NaN, infinity and a field that
    is given twice included.
    """
    return _parse(read_text(path, LARGEST_BYTES), path)


def check_size(path: Path) -> None:
    """Raise E200 for what is not there, is no regular file, or is larger than 64 MiB."""
    try:
        check_regular(path, LARGEST_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error


def _parse(text: str, path: Path) -> object:
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        at = Span(Source(str(path), text), error.pos, error.pos + 1)
        raise IntervError("E110", f"'{path}' is not JSON", at, error.msg.lower()) from error
    except RecursionError as error:
        raise IntervError("E110", f"'{path}' nests too deep") from error
    except ValueError as error:
        raise IntervError("E110", f"'{path}' is not JSON", notes=(str(error),)) from error


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is not a number of JSON")


def _object(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, times in Counter(n for n, _ in pairs).items() if times > 1)
        raise ValueError(f"the field {shown(twice)} is given twice in one object")
    return found


def shown(value: object) -> str:
    """Print a foreign value for a message: quoted where it is a text, on one line, cut."""
    text = "".join(c if c.isprintable() else "?" for c in str(value)[: SHOWN + 1])
    text = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    return f"'{text}'" if isinstance(value, str) else text


@dataclass(frozen=True, slots=True)
class Fields:
    """One object of a foreign file; `where` names it for people: `vectors[0].apply`."""

    values: Mapping[str, object]
    where: str = ""

    def only(self, known: Collection[str]) -> None:
        """Raise E211 for each field that is not one of these."""
        names = tuple(known)
        raise_all(
            [
                IntervError(
                    "E211",
                    f"{shown(name)} is not a field",
                    notes=(*self._place(), f"fields here: {', '.join(names)}"),
                    helps=suggest(name, names),
                )
                for name in self.values
                if name not in names
            ]
        )

    def has(self, name: str) -> bool:
        """Say whether a field is there and not null."""
        return self.values.get(name) is not None

    def inside(self, name: str | int) -> str:
        """Name a part of this object: `vectors[0].apply.prompt`."""
        if isinstance(name, int):
            return f"{self.where}[{name}]"
        return f"{self.where}.{name}" if self.where else name

    def need(self, name: str) -> object:
        """Return a field's value; raise E211 where there is none."""
        if not self.has(name):
            raise IntervError("E211", f"'{name}' is missing", notes=self._place())
        return self.values[name]

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text; raise E211 for anything else, and where it is missing without default."""
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, "a text", value)
        return value

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        """Return one of some words; raise E211 for another."""
        value = self.text(name, default)
        if value not in choices:
            raise IntervError(
                "E211",
                f"{shown(value)} is not {'an' if name[0] in 'aeiou' else 'a'} {name}",
                notes=(*self._place(), f"choices: {', '.join(choices)}"),
                helps=suggest(value, choices),
            )
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Return a finite number; raise E211 for anything else."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, "a number", value)
        return finite(value, self.inside(name))

    def optional(self, name: str) -> float | None:
        """Return a finite number, None where it is missing or null."""
        return self.number(name) if self.has(name) else None

    def flag(self, name: str) -> bool:
        """Return true or false; false where it is missing."""
        value = self._value(name, False)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false", value)
        return value

    def whole(self, name: str, least: int, most: int) -> tuple[int, ...] | None:
        """Return a list of whole numbers in [least, most], None where it is missing or null.

        Raises E211 for anything else, E207 for a number outside.
        """
        if not self.has(name):
            return None
        value = self.values[name]
        if not isinstance(value, list) or not all(type(one) is int for one in value):
            raise self.wrong(name, "a list of whole numbers", value)
        for one in value:
            if not least <= one <= most:
                note = (f"{least} to {most}", *self._place())
                raise IntervError("E207", f"{name} {shown(one)} is out of range", notes=note)
        return tuple(value)

    def part(self, name: str) -> Fields:
        """Return a field that is an object; raise E211 where it is none."""
        return as_object(self.need(name), self.inside(name))

    def parts(self, name: str) -> list[Fields]:
        """Return a field that is a list of objects, at least one; raise E211 otherwise."""
        value = self.need(name)
        if not isinstance(value, list) or not value:
            raise self.wrong(name, "a list of at least one object", value)
        return [as_object(one, f"{self.inside(name)}[{i}]") for i, one in enumerate(value)]

    def wrong(self, name: str, wanted: str, value: object) -> IntervError:
        """Make the error for a value of another kind."""
        return IntervError(
            "E211",
            f"{name}: {wanted} is wanted here",
            notes=(*self._place(), f"found: {_kind(value)}"),
        )

    def _value(self, name: str, default: object) -> object:
        """Return a field's value; null is as good as missing."""
        return self.need(name) if default is None or self.has(name) else default

    def _place(self) -> tuple[str, ...]:
        return (f"in {self.where}",) if self.where else ()


def as_object(value: object, where: str) -> Fields:
    """Return a value as an object; raise E211 where it is none."""
    if isinstance(value, dict):
        return Fields(value, where)
    raise Fields({}).wrong(where, "an object", value)


def by_layer(fields: Fields) -> dict[int, object]:
    """Return the values of an object whose fields are layers, by layer.

    Raises E211 for a field that is no layer.
    """
    found: dict[int, object] = {}
    for name, value in fields.values.items():
        if not LAYER.fullmatch(name):
            note = (f"in {fields.where}", "a layer is written as a number from 0")
            raise IntervError("E211", f"{shown(name)} is not a layer", notes=note)
        found[int(name)] = value
    return dict(sorted(found.items()))


def finite(value: float, where: str) -> float:
    """Return a number that float32 can hold; raise E105 for another."""
    try:
        wide = float(value)
    except OverflowError:
        wide = math.inf
    if not abs(wide) <= 3.4028234663852886e38:
        note = "a number is at most 3.4e38 (float32)"
        raise IntervError("E105", f"{shown(value)} is too large", notes=(f"in {where}", note))
    return wide


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool() | int() | float() | str():
            return shown(value)
        case list():
            return f"a list of {len(value)}"
        case _:
            return "an object"
