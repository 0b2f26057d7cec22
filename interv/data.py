"""Read JSON and YAML that others wrote: bounded work, and nothing that is passed over.

A key that stands twice in one object, a number of thousands of digits and references that unfold
without end are refused.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interv.errors import IntervError, Source, Span

if TYPE_CHECKING:
    from yaml import Node

# Longer numbers take time that grows with the square of their digits.
MOST_DIGITS = 400
# So many parts may be added to a YAML text where every reference in it is written out.
MOST_REPEATED = 20_000
_SHOWN = 60


def parse_json(text: str, name: str) -> object:
    """Parse a JSON text; raise E110 for what is none, E111 for a key that stands twice."""
    try:
        return json.loads(text, parse_int=_whole, parse_float=_real, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        at = Span(Source(name, text), error.pos, error.pos + 1)
        raise IntervError("E110", f"'{name}' is not JSON", at, error.msg.lower()) from error
    except RecursionError as error:
        raise IntervError("E110", f"'{name}' nests too deep") from error
    except _LongNumber as error:
        raise _too_long(str(error), text, name) from error
    except _Twice as twice:
        raise _stands_twice(twice, text, name) from twice


class _LongNumber(Exception):
    """The digits of a number that is too long."""


class _Twice(Exception):
    """A key, and the others of its object."""

    def __init__(self, key: str, keys: Sequence[str]) -> None:
        super().__init__(key)
        self.key, self.keys = key, keys


def _whole(digits: str) -> int:
    return int(_bounded(digits))


def _real(digits: str) -> float:
    return float(_bounded(digits))


def _bounded(digits: str) -> str:
    if len(digits) > MOST_DIGITS:
        raise _LongNumber(digits)
    return digits


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(key for key, _ in pairs)
        raise _Twice(next(key for key in times if times[key] > 1), [*found])
    return found


def _too_long(digits: str, text: str, name: str) -> IntervError:
    start = text.find(digits)
    at = Span(Source(name, text), start, start + MOST_DIGITS // 10) if start >= 0 else None
    return IntervError(
        "E110",
        f"'{name}' holds a number of {len(digits)} characters",
        at,
        "too long",
        notes=(f"a number has at most {MOST_DIGITS}",),
    )


def _stands_twice(twice: _Twice, text: str, name: str) -> IntervError:
    key = json.dumps(twice.key, ensure_ascii=False)
    places = [found.start() for found in re.finditer(rf"{re.escape(key)}\s*:", text)]
    # Which of many objects it is, the parser does not say.
    start = places[1] if len(places) == 2 else -1
    at = Span(Source(name, text), start, start + len(key)) if start >= 0 else None
    return twice_in("an object", twice.key, twice.keys, name, at)


def twice_in(what: str, key: str, keys: Sequence[str], name: str, at: Span | None) -> IntervError:
    """Return E111 for a key that stands twice in one object."""
    shown = [_short(one) for one in keys[:12]]
    more = [f"and {len(keys) - 12} more"] if len(keys) > 12 else []
    return IntervError(
        "E111",
        f"'{name}' gives '{_short(key)}' twice in {what}",
        at,
        "again",
        notes=(f"keys there: {', '.join([*shown, *more])}",),
    )


def _short(key: str) -> str:
    text = "".join(one if one.isprintable() else "?" for one in key[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def parse_yaml(text: str, name: str) -> object:
    """Parse a YAML text; raise E110 for what is none, E111 for a key that stands twice."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _Nodes(text, name).check(node)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = Span(Source(name, text), mark.index, mark.index + 1) if mark else None
        raise IntervError("E110", f"'{name}' is not YAML", at, str(error.problem)) from error
    except RecursionError as error:
        raise IntervError("E110", f"'{name}' nests too deep") from error
    except (yaml.YAMLError, ValueError) as error:
        raise IntervError("E110", f"'{name}' is not YAML: {error}") from error
    finally:
        loader.dispose()


class _Nodes:
    """The nodes of a YAML text, each looked at once, however often it is referred to."""

    def __init__(self, text: str, name: str) -> None:
        self.text, self.name = text, name
        self.sizes: dict[int, int] = {}  # of what a node unfolds to

    def check(self, node: Node) -> None:
        if self.size(node) > len(self.sizes) + MOST_REPEATED:
            raise IntervError(
                "E112",
                f"the references in '{self.name}' repeat too much",
                notes=(f"written out they may add {MOST_REPEATED} parts to it",),
            )

    def size(self, node: Any) -> int:
        known = self.sizes.get(id(node))
        if known is not None:
            return known
        # Met again while it is open, a node holds itself, and unfolds without end.
        self.sizes[id(node)] = len(self.text) + MOST_REPEATED
        self.sizes[id(node)] = size = 1 + sum(self.size(one) for one in self.parts(node))
        return size

    def parts(self, node: Any) -> list[Any]:
        if node.id == "scalar":
            if node.tag.endswith((":int", ":float")) and len(node.value) > MOST_DIGITS:
                raise _too_long(node.value, self.text, self.name)
            return []
        if node.id == "sequence":
            found: list[Any] = node.value
            return found
        seen: set[str] = set()
        for key, _ in node.value:
            # What is merged (<<) may be given several times, and gives way to keys of its own.
            if key.id == "scalar" and key.tag.endswith(":str"):
                if key.value in seen:
                    mark = key.start_mark.index
                    at = Span(Source(self.name, self.text), mark, mark + len(key.value))
                    raise twice_in("an object", key.value, list(seen), self.name, at)
                seen.add(key.value)
        return [part for pair in node.value for part in pair]
