"""Texts of other people, made safe to print."""

from __future__ import annotations


def visible(text: str) -> str:
    """Return a text without signs that would move the cursor or colour the terminal.

    >>> visible("a" + chr(27) + "[2J")
    'a\\\\x1b[2J'
    """
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
