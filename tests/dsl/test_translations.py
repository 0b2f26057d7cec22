"""The tables of docs/selectors.md: each row's selector against the rule of the system it names.

The rules are written here from the formulas of those systems, one token at a time, and the rows are
read from the page, so that neither can drift from the other.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from interv.document.selectors import holds
from interv.document.spec import Edit, Selector
from interv.load import load_text

PAGE = Path(__file__).parents[2] / "docs" / "selectors.md"
NOTHING = "—"
LIMIT = re.compile(r"prompts of at least (\d+) tokens")

Fields: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class At:
    """A token that is fed: where it stands, and what it is."""

    position: int
    prompt_length: int
    token_id: int

    @property
    def in_prompt(self) -> bool:
        return self.position < self.prompt_length

    @property
    def step(self) -> int:
        """Return the step of generation that processes it."""
        return self.position - self.prompt_length


@dataclass(frozen=True, slots=True)
class Row:
    """One row: what the other system is told, our selector, and from which prompt length on."""

    system: str
    said: str
    fields: Fields
    selector: str
    least: int = 1


def easysteer_v0(fields: Fields, at: At) -> bool:
    """Includes of the token's phase, minus its excludes; -1 among tokens is every token."""
    if not at.in_prompt:
        return _among(fields.get("generate_trigger_tokens", []), at)
    included = _among(fields.get("prefill_trigger_tokens", []), at)
    included |= _placed(fields.get("prefill_trigger_positions", []), at)
    excluded = _among(fields.get("prefill_exclude_tokens", []), at)
    excluded |= _placed(fields.get("prefill_exclude_positions", []), at)
    return included and not excluded


def _among(ids: list[int], at: At) -> bool:
    return -1 in ids or at.token_id in ids


def _placed(positions: list[int], at: At) -> bool:
    """Match positions of a prompt that is scheduled whole; those outside it are dropped."""
    return at.position in [p + at.prompt_length if p < 0 else p for p in positions]


def easysteer_v2(fields: Fields, at: At) -> bool:
    """A whole phase or its includes, minus its excludes."""
    phase = "prompt" if at.in_prompt else "generation"
    included = fields.get(phase) == "all" or _matched(fields, phase, at)
    return included and not _matched(fields, f"exclude_{phase}", at)


def _matched(fields: Fields, prefix: str, at: At) -> bool:
    index = at.position if at.in_prompt else at.step
    positions = fields.get(f"{prefix}_positions", [])
    window = fields.get(f"{prefix}_window")
    if at.in_prompt:
        last = at.prompt_length - 1
        positions = [p + last + 1 if p < 0 else min(p, last) for p in positions]
        window = window and tuple(
            bound + last + 1 if bound is not None and bound < 0 else bound for bound in window
        )
    in_window = window is not None and index >= window[0]
    in_window = in_window and (window[1] is None or index < window[1])
    return at.token_id in fields.get(f"{prefix}_tokens", []) or index in positions or in_window


def rhizonymph_tier(fields: Fields, at: At) -> bool:
    """A tier applies to the phase that its name starts with, the base tier to both."""
    (name,) = fields
    phases = {"prefill": at.in_prompt, "decode": not at.in_prompt}
    return phases.get(name.partition("_")[0], True)


def rhizonymph_capture(fields: Fields, at: At) -> bool:
    """Name rows by phase, or by absolute position."""
    wanted = fields["positions"]
    if isinstance(wanted, list):
        return at.position in wanted
    named = {
        "last_prompt": at.position == at.prompt_length - 1,
        "all_prompt": at.in_prompt,
        "all_generated": not at.in_prompt,
        "all": True,
    }
    return named[wanted]


RULES: Mapping[str, Callable[[Fields, At], bool]] = {
    "EasySteer v0": easysteer_v0,
    "`ApplySpec`": easysteer_v2,
    "tier": rhizonymph_tier,
    "`capture`": rhizonymph_capture,
}
# Everything that the other systems can be told, each to be shown in at least one row.
V2_SELECTORS = [
    f"{phase}_{kind}"
    for phase in ("prompt", "generation")
    for kind in ("tokens", "positions", "window")
]
TIERS = [
    f"{phase}{what}" for phase in ("", "prefill_", "decode_") for what in ("vectors", "clamps")
]
KNOWN: Mapping[str, set[str]] = {
    "EasySteer v0": {
        "prefill_trigger_tokens",
        "prefill_trigger_positions",
        "prefill_exclude_tokens",
        "prefill_exclude_positions",
        "generate_trigger_tokens",
    },
    "`ApplySpec`": {
        "prompt",
        "generation",
        *V2_SELECTORS,
        *(f"exclude_{one}" for one in V2_SELECTORS),
    },
    "tier": {
        *TIERS,
        *(
            one.replace("vectors", "steering_vectors").replace("clamps", "steering_clamps")
            for one in TIERS
        ),
    },
    "`capture`": {"positions"},
}


def rows() -> Iterator[Row]:
    """Read the rows of every table whose head names a system."""
    system, page = None, PAGE.read_text(encoding="utf-8").split("## From other systems")[1]
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("|"):
            system = None
        elif system is None:
            system = cells[0]
        elif not line.startswith("|---"):
            yield from _rows(system, *cells)


def _rows(system: str, said: str, selector: str, limit: str = "") -> Iterator[Row]:
    least = int(LIMIT.fullmatch(limit)[1]) if limit else 1  # type: ignore[index]
    wanted = NOTHING if selector == NOTHING else selector.removeprefix("`").removesuffix("`")
    for code in re.findall(r"`([^`]*)`", said):
        yield Row(system, code, _fields(code), wanted, least)


def _fields(code: str) -> Fields:
    """Read `a=[1], b="all"`; a lone name is a field that is there."""
    call = ast.parse(f"f({code})", mode="eval").body
    assert isinstance(call, ast.Call)
    fields = {one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg}
    return fields | {one.id: True for one in call.args if isinstance(one, ast.Name)}


ROWS = list(rows())


@cache
def parsed(text: str) -> Selector:
    text = f'interv 1 vector v = "v" program p {{ steer v at post_block[1] when {text} }}'
    statement = load_text(text).spec.programs[0].statements[0]
    assert isinstance(statement, Edit)
    return statement.when


def requests(row: Row, lengths: range) -> Iterator[list[At]]:
    """Make requests of every prompt length, of several outputs and ids, as their fed tokens."""
    rng = random.Random(row.said)
    named = [one for value in row.fields.values() if isinstance(value, list) for one in value]
    ids = [0, 1, 2, 3, *(one for one in named if isinstance(one, int) and one >= 0)]
    for prompt_length in lengths:
        for _ in range(4):
            length = prompt_length + rng.randrange(24)
            yield [At(place, prompt_length, rng.choice(ids)) for place in range(length)]


def selected(selector: str, request: list[At]) -> list[int]:
    if selector == NOTHING:
        return []
    wanted = parsed(selector)
    return [
        at.position for at in request if holds(wanted, at.position, at.prompt_length, at.token_id)
    ]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.said} is {row.selector}")
def test_a_row_selects_the_same_tokens(row: Row) -> None:
    rule, met = RULES[row.system], 0
    for request in requests(row, range(row.least, row.least + 20)):
        expected = [at.position for at in request if rule(row.fields, at)]
        assert selected(row.selector, request) == expected, request[0]
        met += len(expected)
    assert (met > 0) == (row.selector != NOTHING)


@pytest.mark.parametrize("row", [row for row in ROWS if row.least > 1], ids=lambda row: row.said)
def test_a_row_with_a_limit_differs_below_it(row: Row) -> None:
    rule = RULES[row.system]
    below = list(requests(row, range(row.least - 1, row.least)))
    assert any(
        selected(row.selector, request) != [at.position for at in request if rule(row.fields, at)]
        for request in below
    )


@pytest.mark.parametrize("system", KNOWN)
def test_every_field_has_a_row(system: str) -> None:
    assert {name for row in ROWS if row.system == system for name in row.fields} == KNOWN[system]


def test_every_table_is_of_a_known_system() -> None:
    assert {row.system for row in ROWS} == set(RULES)
