"""Say what is wrong with a program, in the words of the language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from lark import Token

from interv.dsl.clauses import CLAUSES, DECLARATIONS, STATEMENTS, VECTOR_OPTIONS
from interv.dsl.foreign import foreign_site
from interv.dsl.mistakes import EXPRESSION, MISTAKES
from interv.dsl.parser import Failure, run
from interv.dsl.syntax import (
    CLAUSE_TOKENS,
    DECLARATION_TOKENS,
    KEYWORDS,
    STATEMENT_TOKENS,
    span_of,
    tokenize,
)
from interv.errors import IntervError, Label, Source, Span, suggest

PUNCTUATION: Mapping[str, str] = {
    "LSQB": "'['",
    "RSQB": "']'",
    "LPAR": "'('",
    "RPAR": "')'",
    "LBRACE": "'{'",
    "RBRACE": "'}'",
    "EQUAL": "'='",
    "COMMA": "','",
    "COLON": "':'",
    "DOTS": "'..'",
    "STAR": "'*'",
    "PLUS": "'+'",
    "NUMBER": "a number",
    "STRING": "a text in quotes",
}
# What a name is the name of, by the word before it.
NAMED: Mapping[str, str] = {
    "AT": "a site",
    "STEER": "the name of a vector",
    "CAP": "the name of a vector",
    "ABLATE": "the name of a vector",
    "REPLACE": "the name of a vector",
    "ROTATE": "the name of a vector",
    "BY": "the name of a vector",
    "TOWARDS": "the name of a vector",
    "GATE": "the name of a vector",
    "APPLY": "the name of an adapter",
    "TO": "the name of a sink",
    "DEFAULT": "the name of a program",
    "CONFLICT": "a conflict policy",
    "ROWS": "'blocks' or 'hidden_states'",
}
SELECTOR_TOKENS = frozenset({"ALL", "PROMPT", "GENERATED", "TOKEN", "NOT", "LPAR"})
VALUE_TOKENS = frozenset({"NUMBER", "STRING", "NAME"})
FINITE = frozenset({"nan", "inf", "infinity"})


def explain(failure: Failure) -> IntervError:
    """Turn a failed parse into the error that a user sees."""
    found = failure.found
    if "INTERV" in failure.expected:
        return _no_header(failure)
    if (error := foreign_site(failure)) is not None:
        return error
    if found is None:
        return _unexpected_end(failure)
    if found.type == "UNTERMINATED":
        span = Span(failure.source, found.start_pos, found.start_pos + len(found.rstrip()))
        return IntervError("E103", "this text is not closed", span, "expected '\"' on this line")
    if _closes(failure, found):
        return _not_closed(failure, f"before '{found}'")
    if failure.expected & (STATEMENT_TOKENS | DECLARATION_TOKENS) and found.type == "NAME":
        return _unknown_word(failure, found)
    return _unexpected(failure, found)


def _closes(failure: Failure, found: Token) -> bool:
    declares = found.type in DECLARATION_TOKENS
    return declares and failure.block is not None and "RBRACE" in failure.expected


def _no_header(failure: Failure) -> IntervError:
    helps = ("write 'interv 1' as the first line",)
    if failure.found is None:
        span = Span(failure.source, 0, 0)
        return IntervError(
            "E104", "the document is empty", span, "expected 'interv 1'", helps=helps
        )
    message = "a document starts with its version"
    return IntervError(
        "E104", message, _where(failure), "expected 'interv 1' before this", helps=helps
    )


def _unexpected_end(failure: Failure) -> IntervError:
    if failure.block is not None and "RBRACE" in failure.expected:
        return _not_closed(failure, "at the end of the text")
    return IntervError(
        "E102",
        f"the text ends where {_wanted(failure)} should stand",
        _where(failure),
        f"expected {_wanted(failure)}",
        helps=_hints(failure),
    )


def _not_closed(failure: Failure, place: str) -> IntervError:
    assert failure.block is not None
    word, name = failure.tokens[failure.block : failure.block + 2]
    opened = Span(failure.source, word.start_pos, name.end_pos)
    return IntervError(
        "E102",
        f"{word} '{name}' is not closed {place}",
        _where(failure),
        "expected '}' before this" if failure.found else "expected '}'",
        more=(Label(opened, "opened here"),),
    )


def _unknown_word(failure: Failure, found: Token) -> IntervError:
    """A word where a clause, a statement or a declaration should start."""
    word, inside = str(found), failure.block is not None
    owner = str(failure.tokens[failure.begin])
    clauses = _clauses_here(failure, owner)
    others = STATEMENTS if inside else DECLARATIONS
    helps = suggest(word, (*clauses, *others, *_logic(failure))) or _hints(failure)
    near = bool(suggest(word, clauses))
    if clauses and (near or not (failure.on_new_line or suggest(word, others))):
        noun, plural = f"a clause of {owner}", f"clauses of {owner}"
        names = clauses
    else:
        noun, plural = (
            ("a statement", "statements") if inside else ("a declaration", "declarations")
        )
        names = others
    return IntervError(
        "E101",
        f"'{word}' is not {noun}",
        _where(failure),
        f"not {noun}",
        notes=(f"{plural}: {', '.join(names)}",),
        helps=helps,
    )


def _clauses_here(failure: Failure, owner: str) -> tuple[str, ...]:
    if "UNIT" in failure.expected:
        return VECTOR_OPTIONS
    if not failure.expected & CLAUSE_TOKENS:
        return ()
    # Of all clauses only these have one place: right behind the name.
    placed = {w for w in ("by", "towards") if w.upper() not in failure.expected}
    clauses = tuple(w for w in CLAUSES.get(owner, ()) if w not in placed)
    return (*clauses, *CLAUSES["gate"][1:]) if "gate" in clauses else clauses


def _logic(failure: Failure) -> tuple[str, ...]:
    return tuple(word.lower() for word in ("AND", "OR") if word in failure.expected)


def _unexpected(failure: Failure, found: Token) -> IntervError:
    # A character that prints as nothing, or as a space, is shown by its number.
    shown = str(found) if found.isprintable() and found.strip() else f"U+{ord(found[0]):04X}"
    wanted, helps = _wanted(failure), _hints(failure)
    if "NUMBER" in failure.expected and shown.lower() in FINITE:
        message = f"'{shown}' is not a finite number"
        return IntervError("E105", message, _where(failure), "not finite")
    complete = failure.expected & (STATEMENT_TOKENS | DECLARATION_TOKENS)
    if failure.on_new_line and failure.previous is not None and not complete:
        end = failure.previous.end_pos
        message = f"expected {wanted} after '{failure.previous}'"
        return IntervError("E101", message, Span(failure.source, end, end), "missing", helps=helps)
    if found.type == "NAME":
        words = [word.lower() for word in failure.expected & KEYWORDS]
        helps = suggest(shown, words) or helps
    message = f"expected {wanted}, found '{shown}'"
    return IntervError("E101", message, _where(failure), f"expected {wanted}", helps=helps)


def _where(failure: Failure) -> Span:
    if failure.found is not None:
        return span_of(failure.source, failure.found)
    end = failure.previous.end_pos if failure.previous else 0
    return Span(failure.source, end, end)


def _wanted(failure: Failure) -> str:
    """Name what could stand here, most telling first."""
    parts = list(_wanted_parts(failure.expected, failure.previous))
    head, last = parts[:-1], parts[-1]
    return f"{', '.join(head)} or {last}" if head else last


def _wanted_parts(expected: frozenset[str], previous: Token | None) -> Iterator[str]:
    before = previous.type if previous is not None else ""
    if expected >= SELECTOR_TOKENS:
        yield "a selector"
        return
    if before == "EQUAL" and expected == {"STRING"}:
        yield "a path in quotes"
        return
    if expected >= VALUE_TOKENS:
        yield "a value"
        expected -= VALUE_TOKENS
    if "NAME" in expected:
        yield NAMED.get(before, "a name")
    yield from _wanted_words(expected)
    for kind, words in PUNCTUATION.items():
        # Of a complete selector the indexing bracket is the least likely next thing.
        if kind in expected and not (kind == "LSQB" and "AND" in expected):
            yield words
    if "$END" in expected and not expected & DECLARATION_TOKENS:
        yield "the end of the text"


def _wanted_words(expected: frozenset[str]) -> Iterator[str]:
    if "TOKEN" in expected:
        yield "a marker, token(…)"
    for word in ("AND", "OR"):
        if word in expected:
            yield f"'{word.lower()}'"
    for kinds, words in (
        (CLAUSE_TOKENS, "a clause"),
        # Both can be `conflict`, so that alone tells nothing.
        (STATEMENT_TOKENS - DECLARATION_TOKENS, "a statement"),
        (DECLARATION_TOKENS - STATEMENT_TOKENS, "a declaration"),
    ):
        if expected & kinds:
            yield words


def _hints(failure: Failure) -> tuple[str, ...]:
    kind = failure.found.type if failure.found is not None else "$END"
    hint = _table().get((failure.state, kind))
    return (hint,) if hint else ()


@cache
def _table() -> Mapping[tuple[int, str], str]:
    """Parse every example of a mistake and note where it fails."""
    table: dict[tuple[int, str], str] = {}
    for hint, examples in MISTAKES:
        for example in examples:
            failure = _fail(example)
            kind = failure.found.type if failure.found is not None else "$END"
            table.setdefault((failure.state, kind), hint)
    return table


def _fail(example: str) -> Failure:
    is_expression = example.startswith(EXPRESSION)
    source = Source("<example>", example.removeprefix(EXPRESSION))
    tokens, _ = tokenize(source)
    failure = run(source, tokens, "expression" if is_expression else "document")
    assert isinstance(failure, Failure), f"not a mistake: {example}"
    return failure
