"""The map of the first screen of CONTRIBUTING.md: every file and folder that it names exists."""

from __future__ import annotations

import re

from tests.repo.files import ROOT, STAGES

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
STEPS = 10


def test_every_path_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]*(?:\.(?:py|lark|md|toml))?)`", TEXT))
    assert len(named) > 50
    lost = {path for path in named if not (ROOT / path).exists() and "NAME" not in path}
    # Rooms of one table cell are named without their parent.
    assert {
        path
        for path in lost
        if not (ROOT / "interv" / path).is_dir() and not (ROOT / "passes" / path).is_dir()
    } == set()


def test_the_map_has_every_folder_of_code() -> None:
    table = TEXT[TEXT.index("| folder |") : TEXT.index("The way of one request")]
    for stage in STAGES:
        folders = [one.parent for one in (ROOT / stage).glob("*/__init__.py")]
        for folder in folders:
            assert f"{folder.name}/`" in table, folder


def test_the_way_of_a_request_has_few_steps() -> None:
    way = TEXT[TEXT.index("The way of one request") : TEXT.index("## The taste")]
    assert re.findall(r"^\d+", way, re.MULTILINE) == [str(n + 1) for n in range(STEPS)]
