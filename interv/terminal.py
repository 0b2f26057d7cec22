"""The terminal that commands print to: what is printed is text, and nothing in it is markup."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def terminal(*, stderr: bool = False) -> Console:
    """Return a console that prints every text as it is: brackets, colons, numbers.

    Prompts, names and advice come from outside; colour is given by `Text` and styles alone.
    """
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)
