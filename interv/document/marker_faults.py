"""What can be wrong with the markers of a selector, beyond what pydantic refuses."""

from __future__ import annotations

from collections.abc import Iterator

from interv.document.document import Document, SpecPath
from interv.document.markers import LONGEST_MARKER
from interv.document.selectors import selector_text
from interv.document.spec import Selector, Token
from interv.document.token_texts import tokens_of
from interv.document.wording import path_notes
from interv.errors import IntervError


def ids_of(leaf: Selector) -> Iterator[int | str]:
    """Yield the ids and texts that a part of a selector names, those of sequences too."""
    for _, token in tokens_of((), leaf):
        for one in token.ids:
            yield from one if isinstance(one, tuple) else (one,)


def marker_faults(document: Document, path: SpecPath, leaf: Selector) -> Iterator[IntervError]:
    """Yield E850 for a sequence where a token is asked for, E851 for one that is too long."""
    for where, token in tokens_of(path, leaf):
        for k, one in enumerate(token.ids):
            if not isinstance(one, tuple):
                continue
            place, span = (*where, "ids", k), document.span(*where, "ids", k)
            if isinstance(leaf, Token):
                yield IntervError(
                    "E850",
                    f"'{selector_text(token)}' selects one token at a time, not a sequence",
                    span,
                    "a sequence",
                    notes=path_notes(document, place),
                    helps=("sequences are markers: after token([5, 6])",),
                )
            elif len(one) > LONGEST_MARKER:
                yield IntervError(
                    "E851",
                    f"this marker is {len(one)} tokens",
                    span,
                    f"{len(one)} tokens",
                    notes=(
                        f"a marker has 1 to {LONGEST_MARKER} tokens",
                        *path_notes(document, place),
                    ),
                )
