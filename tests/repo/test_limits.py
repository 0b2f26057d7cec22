"""The hard limits: sizes of files, functions and lines, and no words for unfinished work."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.repo.files import OTHERS, ROOT, STAGES, name_of, python_files, text_files

FILE_LINES = 400
FUNCTION_LINES = 60
COLUMNS = 100
# A kernel is one function by nature: what it does must stand in one place.
KERNELS = ROOT / "codegen" / "kernels"
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError")
PYTHON = tuple(python_files(*STAGES, *OTHERS))


def test_the_tree_was_found() -> None:
    assert len(PYTHON) > 100
    assert {file.relative_to(ROOT).parts[0] for file in PYTHON} >= set(STAGES)


def test_files_are_short() -> None:
    lengths = {name_of(file): len(file.read_text().splitlines()) for file in PYTHON}
    assert {name: count for name, count in lengths.items() if count > FILE_LINES} == {}


def test_functions_are_short() -> None:
    lengths = {}
    for file in PYTHON:
        if file.is_relative_to(KERNELS):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lengths[f"{name_of(file)}:{node.name}"] = node.end_lineno - node.lineno + 1
    assert {name: count for name, count in lengths.items() if count > FUNCTION_LINES} == {}


def test_lines_are_short() -> None:
    long = [
        f"{name_of(file)}:{number}"
        for file in PYTHON
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if len(line) > COLUMNS
    ]
    assert long == []


def test_nothing_is_marked_as_unfinished() -> None:
    marked = [
        f"{name_of(file)}: {line}"
        for file in text_files()
        if file != Path(__file__)
        for line in file.read_text(encoding="utf-8").splitlines()
        if UNFINISHED.search(line)
    ]
    assert marked == []
