"""Error codes: each has one meaning, and docs/errors.md says which."""

from __future__ import annotations

import re

import pytest
from error_codes import HOLE, Use, uses
from errors_table import GROUPS, MEANINGS, PAGE, page

from tests.repo.files import ROOT

FOUND = uses(ROOT)


def test_the_page_is_current() -> None:
    """Where this fails, run `python scripts/errors_table.py`, which may ask for a new meaning."""
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(FOUND)


def test_every_code_has_a_meaning_and_every_meaning_a_code() -> None:
    assert {use.code for use in FOUND} == set(MEANINGS)
    assert {code[:2] for code in MEANINGS} == set(GROUPS)


def test_no_two_codes_mean_the_same() -> None:
    meanings = [meaning for meaning, _ in MEANINGS.values()]
    assert len(set(meanings)) == len(meanings)


@pytest.mark.parametrize("code", MEANINGS)
def test_the_example_is_a_message_of_its_code(code: str) -> None:
    messages = [use.message for use in FOUND if use.code == code and use.message]
    patterns = [".+".join(map(re.escape, one.split(HOLE))) for one in messages]
    # Four codes are chosen from tables and stand apart from their message.
    assert patterns or code in ("E201", "E202", "E203", "E204")
    example = MEANINGS[code][1]
    assert not patterns or any(re.fullmatch(one, example) for one in patterns)


def test_codes_are_found_with_their_messages() -> None:
    assert Use("E882", "interv.document.position_checks", f"a step of {HOLE} is too large") in FOUND
    assert Use("E243", "interv.passes.graph.model_fit", f"{HOLE} blocks") in FOUND
