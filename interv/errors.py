"""One error class, from the parser to the runtime, with the source line under it.

Codes: E1xx syntax, E2xx names and types, E3xx invalid IR (a bug of ours), E4xx lowering,
E5xx vLLM and runtime.
"""

from __future__ import annotations

import difflib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

# The most characters of a source line that an error shows.
_WIDEST = 400
# The most errors of one run that are printed; nobody reads more before mending some.
MOST_SHOWN = 100
# Of more names than these only those that look alike are compared with a word, which takes long.
_MOST_NEAR = 100


@dataclass(frozen=True, slots=True)
class Source:
    """A named text that spans point into: a file's contents, or a request's expression."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Span:
    """The characters `[start, end)` of a source."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        """Return the 1-based line of the first character."""
        return bisect_right(_line_starts(self.source.text), self.start)

    @property
    def column(self) -> int:
        """Return the 1-based column of the first character."""
        return self.start - self.line_bounds[0] + 1

    @property
    def line_bounds(self) -> tuple[int, int]:
        """Return where the line of the first character begins and ends, without its break."""
        text, starts, line = self.source.text, _line_starts(self.source.text), self.line
        end = starts[line] - 1 if line < len(starts) else len(text)
        return starts[line - 1], end

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}"


@lru_cache(maxsize=4)
def _line_starts(text: str) -> array[int]:
    """Return where each line begins: found once, however many errors a text has."""
    starts, at = array("Q", [0]), text.find("\n")
    while at >= 0:
        starts.append(at + 1)
        at = text.find("\n", at + 1)
    return starts


@dataclass(frozen=True, slots=True)
class Label:
    """A span and what to say under its carets."""

    span: Span
    text: str = ""


class IntervError(Exception):
    """Something a user wrote, or a model lacks, that cannot be applied.

    `span` is where it stands (None for specs made in Python), `label` the words beside the
    carets, `more` further labelled spans, `notes` lists of alternatives and reasons, `helps`
    suggestions.
    """

    def __init__(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        label: str = "",
        *,
        notes: Sequence[str] = (),
        helps: Sequence[str] = (),
        more: Sequence[Label] = (),
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.span = span
        self.label = label
        self.notes = tuple(notes)
        self.helps = tuple(helps)
        self.more = tuple(more)

    def __str__(self) -> str:
        return render(self)

    def __reduce__(self) -> tuple[object, ...]:
        rest = (self.notes, self.helps, self.more)
        return (_rebuild, (type(self), self.code, self.message, self.span, self.label, rest))


def _rebuild(
    kind: type[IntervError],
    code: str,
    message: str,
    span: Span | None,
    label: str,
    rest: tuple[tuple[str, ...], tuple[str, ...], tuple[Label, ...]],
) -> IntervError:
    notes, helps, more = rest
    return kind(code, message, span, label, notes=notes, helps=helps, more=more)


class IntervErrors(IntervError):
    """Several errors found in one run, in source order."""

    def __init__(self, errors: Sequence[IntervError]) -> None:
        assert errors
        first = errors[0]
        super().__init__(
            first.code,
            first.message,
            first.span,
            first.label,
            notes=first.notes,
            helps=first.helps,
            more=first.more,
        )
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n\n".join(shown_errors(self.errors))

    def __reduce__(self) -> tuple[object, ...]:
        return (IntervErrors, (self.errors,))


def raise_all(errors: Sequence[IntervError]) -> None:
    """Raise what was collected: nothing, the one error, or all of them together."""
    flat = [one for error in errors for one in each(error)]
    if len(flat) == 1:
        raise flat[0]
    if flat:
        raise IntervErrors(flat)


def each(error: IntervError) -> tuple[IntervError, ...]:
    """Return the single errors of `error`."""
    return error.errors if isinstance(error, IntervErrors) else (error,)


def shown_errors(errors: Sequence[IntervError]) -> Iterator[str]:
    """Yield the texts of the first `MOST_SHOWN` errors, and how many more there are."""
    yield from (render(error) for error in errors[:MOST_SHOWN])
    if (more := len(errors) - MOST_SHOWN) > 0:
        yield f"and {more} more error{'s' if more > 1 else ''}"


def by_place(error: IntervError) -> int:
    """Return the sort key of source order; errors without a span come first."""
    return error.span.start if error.span else 0


def suggest(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return a "did you mean" help for the name nearest to `word`, or nothing."""
    names = list(known)
    if len(names) > _MOST_NEAR:
        names = [n for n in names if n[:1] == word[:1] and abs(len(n) - len(word)) < 3][:_MOST_NEAR]
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return (f"did you mean '{near[0]}'?",) if near else ()


def render(error: IntervError) -> str:
    """Lay an error out with its source lines and carets, as plain text."""
    out = [f"error[{error.code}]: {error.message}"]
    labels = ([Label(error.span, error.label)] if error.span else []) + list(error.more)
    width = max((len(str(label.span.line)) for label in labels), default=0)
    for label in labels:
        out += _excerpt(label, width)
    pad = " " * (width + 1) if labels else "  "
    facts = [*error.notes, *error.helps]
    if labels and facts:
        out.append(f"{pad}|")
    out += [f"{pad}= {fact}" for fact in facts]
    return "\n".join(out)


def _excerpt(label: Label, width: int) -> list[str]:
    span, text = label.span, label.span.source.text
    begin, stop = span.line_bounds
    # Of a line that nobody could read only a part is shown: a message stays small.
    left = max(begin, span.start - _WIDEST // 2) if stop - begin > _WIDEST else begin
    right = min(stop, left + _WIDEST)
    cut = ["…" if left > begin else "", "…" if right < stop else ""]
    pad = " " * (width + 1)
    carets = "^" * max(1, min(span.end, right) - span.start)
    # Tabs stay tabs in the caret line, so that it lines up in any terminal.
    lead = "".join("\t" if c == "\t" else " " for c in cut[0] + text[left : span.start])
    under = f"{lead}{carets} {label.text}".rstrip()
    return [
        f"{' ' * width}--> {span.source.name}:{span.line}:{span.column}",
        f"{pad}|",
        f"{span.line:>{width}} | {cut[0]}{text[left:right]}{cut[1]}",
        f"{pad}| {under}",
    ]
