"""Prompts that are embeddings: they have positions and no ids, so no token of them has a text."""

from __future__ import annotations

from collections.abc import Iterator

from interv.codegen.bundle import Bundle
from interv.document.markers import Following
from interv.document.selectors import atoms
from interv.document.spec import Selector, Token
from interv.errors import IntervError
from interv.runtime.choice import Choice


def refuse_unknown_tokens(bundle: Bundle, choice: Choice) -> None:
    """Raise IntervError E534 for programs that select by ids, which such a prompt does not have."""
    for selector in _selectors(bundle, choice):
        if any(isinstance(one, Token | Following) for one in atoms(selector)):
            raise IntervError(
                "E534",
                "a prompt of embeddings has no tokens that 'token(…)' could select",
                notes=["a program of this request selects by the ids of tokens"],
                helps=["send the prompt as text or ids", "select by position: prompt[-1]"],
            )


def _selectors(bundle: Bundle, choice: Choice) -> Iterator[Selector]:
    if choice.inline is not None:
        yield from choice.inline.selectors
    for name, _ in choice.terms:
        for table in bundle.sites:
            for column in table.programs.get(name, ()):
                yield bundle.selectors[column.selector]
        for capture in bundle.captures:
            if capture.program == name:
                yield bundle.selectors[capture.selector]
