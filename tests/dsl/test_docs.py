"""The tables of docs/selectors.md name real selectors; its blocks are tested with all pages."""

from __future__ import annotations

import re
from pathlib import Path

from interv.load import load_text

PAGE = Path(__file__).parents[2] / "docs" / "selectors.md"


def test_every_selector_of_the_tables_is_one() -> None:
    rows = re.findall(r"^\| .* \| (`[^|…]*`) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    selectors = [one for row in rows for one in re.findall(r"`([^`]*)`", row)]
    assert len(selectors) > 20
    for selector in selectors:
        text = f'interv 1 vector v = "v" program p {{ steer v at post_block[1] when {selector} }}'
        assert load_text(text).spec.programs[0].statements[0].when is not None
