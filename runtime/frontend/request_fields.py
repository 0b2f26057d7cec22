"""The fields that interv reads in a request, where they stand, and what is taken for one of them.

vLLM lets unknown fields pass. A field that was meant for interv and is misspelt, or stands in
another place, is refused instead: an answer without the edit that was asked for looks like one.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from interv.errors import IntervError, raise_all
from interv.runtime.choice import ASKED, REPORT, RESOLVED, TAG
from interv.runtime.kv.asked import ASKED_KV

FIELDS = (ASKED, REPORT, TAG, ASKED_KV)
# The names of the objects that lead to a field; () is `extra_args` of vLLM's sampling parameters.
Place: TypeAlias = tuple[str, ...]
OFFLINE: tuple[Place, ...] = ((),)
OVER_HTTP: tuple[Place, ...] = (("vllm_xargs",),)
OF_TOKENS: tuple[Place, ...] = (("sampling_params", "extra_args"), ("vllm_xargs",))

_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")
_CARRIERS = ("vllmxargs", "extraargs", "extrabody", "samplingparams", "xargs")
# What a request has more of is not looked at: nobody writes so much by hand.
_MOST_KEYS, _MOST_LENGTH, _MOST_DEPTH = 512, 48, 3
# How many letters may be missing, too many, or (a swap or a wrong one counts twice) others.
_MOST_LETTERS = 2


def check_fields(body: Mapping[Any, Any], homes: tuple[Place, ...]) -> None:
    """Raise IntervError E511 for each field that was meant for interv and is not one of it."""
    raise_all(list(itertools.islice(_wrong(body, (), homes), 8)))


def fields_in(body: Mapping[Any, Any], homes: tuple[Place, ...]) -> dict[str, Any]:
    """Return what a request says in interv's fields. Raises IntervError E511, E514 and E516."""
    check_fields(body, homes)
    for name in {place[0] for place in homes if place} & body.keys():
        if not isinstance(body[name], Mapping | None):
            kind = type(body[name]).__name__
            raise IntervError("E516", f"'{name}' is an object of fields, not {kind}")
    said = [(place, found) for place in homes if (found := _at(body, place))]
    if len(said) > 1:
        places = " and ".join(f"'{'.'.join(place)}'" for place, _ in said)
        raise IntervError("E514", f"the request says what it wants twice, in {places}")
    return said[0][1] if said else {}


def _at(body: Any, place: Place) -> dict[str, Any]:
    for name in place:
        body = body.get(name) if isinstance(body, Mapping) else None
    return {key: body[key] for key in FIELDS if key in body} if isinstance(body, Mapping) else {}


def _wrong(
    fields: Mapping[Any, Any], place: Place, homes: tuple[Place, ...]
) -> Iterator[IntervError]:
    for key, value in itertools.islice(fields.items(), _MOST_KEYS):
        if not isinstance(key, str):
            continue
        field = key if key in FIELDS else meant(key)
        if field is not None and not (field == key and place in homes):
            yield _no_field((*place, key), field, homes[0])
        elif isinstance(value, Mapping) and len(place) < _MOST_DEPTH and _carries(key):
            yield from _wrong(value, (*place, key), homes)


def _no_field(path: Place, field: str, home: Place) -> IntervError:
    def written(*path: str) -> str:
        return ".".join(path if home else ("extra_args", *path))

    return IntervError(
        "E511",
        f"a request has no field '{written(*path):.120}'",
        notes=[f"fields here: {', '.join(written(*home, name) for name in FIELDS)}"],
        helps=[f"did you mean '{written(*home, field)}'?"],
    )


@functools.lru_cache(4096)
def meant(key: str) -> str | None:
    """Return the field that a key is close to without being one, None where it is another's.

    Close is a key whose first word is, or is nearly, `intervention`, and one that is nearly a
    whole field; so is one that begins with the name of this package.

    >>> meant("interventon"), meant("InterventionReport"), meant("interv_tag")
    ('intervention', 'intervention_report', 'intervention_tag')
    >>> meant("interception"), meant("intention"), meant("medical_intervention_level")
    (None, None, None)
    """
    if key in FIELDS or key == RESOLVED or len(key) > _MOST_LENGTH:
        return None
    first, *others = [word.lower() for word in _WORD.findall(key)] or [""]
    if ASKED in others:
        return None  # somebody else's word stands before it
    distance, field = min(
        (_letters("".join([first, *others]), _joined(one)), one) for one in FIELDS
    )
    if distance <= _MOST_LETTERS:
        return field
    if not (first == "interv" or first.startswith(ASKED) or _near(first, ASKED)):
        return None
    rest = "".join([first[len(ASKED) :] if first.startswith(ASKED) else "", *others])
    suffixes = {field.removeprefix(f"{ASKED}_"): field for field in FIELDS[1:]}
    (closest,) = difflib.get_close_matches(rest, suffixes, 1) or ("",)
    return suffixes.get(closest, ASKED)


def _joined(field: str) -> str:
    return field.replace("_", "")


def _carries(key: str) -> bool:
    """Say whether an object of this name may have been meant to lead to interv's fields.

    The contents of others, as of a schema or a template, are the user's own.
    """
    if len(key) > _MOST_LENGTH:
        return False
    whole = "".join(word.lower() for word in _WORD.findall(key))
    return any(_near(whole, one) for one in _CARRIERS)


def _near(one: str, other: str) -> bool:
    return _letters(one, other) <= _MOST_LETTERS


def _letters(one: str, other: str) -> int:
    """Return how many letters are in one of two words and not in the other, in order."""
    if abs(len(one) - len(other)) > _MOST_LETTERS:
        return len(one) + len(other)
    # The longest common subsequence, a row of its table at a time.
    row = [0] * (len(other) + 1)
    for letter in one:
        before = 0
        for i, theirs in enumerate(other, 1):
            longest = before + 1 if letter == theirs else max(row[i], row[i - 1])
            before, row[i] = row[i], longest
    return len(one) + len(other) - 2 * row[-1]
