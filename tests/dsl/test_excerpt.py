"""Source lines under an error, where a line is too long to show."""

from __future__ import annotations

import pytest

from interv.errors import IntervError, Source, Span


def shown(text: str, start: int, end: int) -> list[str]:
    error = IntervError("E101", "wrong", Span(Source("a", text), start, end), "here")
    return str(error).splitlines()


@pytest.mark.parametrize("length", [10, 400])
def test_a_line_is_shown_whole(length: int) -> None:
    text = "x" * length
    assert shown(f"1\n{text}\n3", 5, 7)[3:] == [f"2 | {text}", "  |    ^^ here"]


@pytest.mark.parametrize(
    ("start", "end", "line", "carets"),
    [
        (0, 2, "a" * 400 + "…", "^^"),
        (150, 900, "a" * 400 + "…", " " * 150 + "^" * 250),
        (500, 501, "…" + "a" * 400 + "…", " " * 201 + "^"),
        (998, 1000, "…" + "a" * 202, " " * 201 + "^^"),
    ],
)
def test_of_a_long_line_a_part_is_shown(start: int, end: int, line: str, carets: str) -> None:
    found = shown("a" * 1000, start, end)
    assert found[1] == f" --> a:1:{start + 1}"
    assert found[3:] == [f"1 | {line}", f"  | {carets} here"]
