"""The blocks of README and docs are true: documents read, Python runs, commands print as shown.

A block is what stands between two fences; the words after the opening one say what it is.
CONTRIBUTING.md has the convention.
"""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from interv.cli import COMMANDS, build
from interv.dsl.formatter import format_text
from interv.load import load_text
from tests.repo.files import ROOT

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.M | re.S)
KINDS = {"interv", "python", "python engine", "console", "console engine", "text", "bash", "json"}
PROMPT = "$ "


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: `where` is its page and line."""

    where: str
    info: str
    text: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(f"{page.name}:{text[: m.start()].count(chr(10)) + 1}", m["info"].strip(), m["text"])
        for m in FENCE.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]


def named(info: str, start: str = "") -> list[object]:
    found = (one for one in BLOCKS if one.info == info and one.text.startswith(start))
    return [pytest.param(one, id=one.where) for one in found]


def commands(block: Block) -> list[tuple[str, str]]:
    """Return the commands of a console block, each with the output shown under it."""
    found: list[tuple[str, str]] = []
    for line in block.text.splitlines(keepends=True):
        if line.startswith(PROMPT):
            found.append((line.removeprefix(PROMPT).rstrip(), ""))
        else:
            command, output = found.pop()
            found.append((command, output + line))
    return found


@pytest.fixture
def in_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in a folder with the repository's examples, which a command may change."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def test_every_block_says_what_it_is() -> None:
    assert [one.where for one in BLOCKS if one.info not in KINDS] == []
    assert {one.info for one in BLOCKS} >= {"interv", "python", "text"}


@pytest.mark.parametrize("block", named("interv"))
def test_documents_read(block: Block) -> None:
    assert load_text(block.text).spec == load_text(format_text(block.text)).spec


@pytest.mark.parametrize("block", named("python"))
@pytest.mark.usefixtures("in_a_copy")
def test_python_runs(block: Block) -> None:
    exec(compile(block.text, block.where, "exec"), {"__name__": "__main__"})


def test_python_for_an_engine_compiles() -> None:
    for block in (one for one in BLOCKS if one.info == "python engine"):
        assert compile(block.text, block.where, "exec").co_filename == block.where


@pytest.mark.parametrize("block", named("console", f"{PROMPT}interv "))
@pytest.mark.usefixtures("in_a_copy")
def test_commands_print_what_is_shown(block: Block) -> None:
    for command, shown in commands(block):
        program, *words = shlex.split(command, comments=True)
        assert program == "interv", "mark the block as `console engine`"
        result = CliRunner().invoke(build(words), words)
        assert result.output.rstrip() == shown.rstrip()


def test_commands_that_are_not_run_exist() -> None:
    lines = (line for one in BLOCKS if "console" in one.info for line in one.text.splitlines())
    shown = (line.removeprefix(PROMPT).split() for line in lines if line.startswith(PROMPT))
    assert {words[1] for words in shown if words[0] == "interv"} <= set(COMMANDS)


def test_commands_are_cut_from_their_output() -> None:
    block = Block("", "console", "$ interv a\none\n\ntwo\n$ interv b\n")
    assert commands(block) == [("interv a", "one\n\ntwo\n"), ("interv b", "")]
