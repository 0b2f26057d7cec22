"""A site that is written as another tool writes it, with points and indices in its path."""

from __future__ import annotations

from interv.document.foreign_sites import PATH, advice
from interv.document.sites import SITES
from interv.dsl.parser import Failure
from interv.errors import IntervError, Span


def foreign_site(failure: Failure) -> IntervError | None:
    """Return E201 where a parse stopped inside of such a path behind `at`; else None."""
    found = failure.found
    before = failure.tokens[failure.begin : failure.index]
    starts = [i for i, token in enumerate(before) if token.type == "AT"]
    if found is None or not starts or starts[-1] + 1 >= len(before):
        return None
    start = before[starts[-1] + 1].start_pos
    match = PATH.match(failure.source.text, start)
    if match is None or "." not in match[0] or found.start_pos >= match.end():
        return None
    if not (helps := advice(match[0])):
        return None
    notes = (f"sites here: {', '.join(SITES)}",)
    span = Span(failure.source, start, match.end())
    message = f"'{match[0]}' is not a site"
    return IntervError("E201", message, span, "not a site", notes=notes, helps=helps)
