"""Every `interv` block of the documentation is a document, every `python` block of it runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from interv.dsl.formatter import format_text
from interv.load import load_text

DOCS = sorted(Path(__file__).parents[2].joinpath("docs").glob("*.md"))
PAGES = [page for page in DOCS if page.stem in ("language", "selectors")]


def blocks(language: str) -> list[object]:
    found = []
    for page in PAGES:
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S):
            line = page.read_text()[: match.start()].count("\n") + 1
            found.append(pytest.param(match[1], id=f"{page.name}:{line}"))
    return found


@pytest.mark.parametrize("text", blocks("interv"))
def test_documents(text: str) -> None:
    assert load_text(text).spec == load_text(format_text(text)).spec


@pytest.mark.parametrize("text", blocks("python"))
def test_python(text: str) -> None:
    names: dict[str, object] = {}
    exec(text, names)
    assert names["document"].spec.default == "calm"


def test_every_selector_of_the_tables_is_one() -> None:
    page = next(page for page in PAGES if page.stem == "selectors").read_text()
    rows = re.findall(r"^\| .* \| (`[^|…]*`) \|$", page, re.M)
    selectors = [one for row in rows for one in re.findall(r"`([^`]*)`", row)]
    assert len(selectors) > 20
    for selector in selectors:
        text = f'interv 1 vector v = "v" program p {{ steer v at post_block[1] when {selector} }}'
        assert load_text(text).spec.programs[0].statements[0].when is not None
