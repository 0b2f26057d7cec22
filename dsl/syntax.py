"""The grammar, loaded once, and the tokens of a text."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from itertools import islice

from lark import Lark, Token

from interv.dsl.clauses import CLAUSES, DECLARATIONS, STATEMENTS, VECTOR_OPTIONS
from interv.errors import IntervError, Source, Span

STATEMENT_TOKENS = frozenset(word.upper() for word in STATEMENTS)
DECLARATION_TOKENS = frozenset(word.upper() for word in DECLARATIONS)
CLAUSE_TOKENS = frozenset(word.upper() for clauses in CLAUSES.values() for word in clauses)
EDIT_TOKENS = frozenset({"STEER", "CAP", "ABLATE", "REPLACE", "ROTATE", "APPLY"})
OTHER_WORDS = frozenset(
    {"INTERV", "KEY", "UNIT", "ALL", "PROMPT", "GENERATED", "TOKEN", "AND", "OR", "NOT"}
    | {"NORM", "OVER", "BEFORE", "BETWEEN"}
)
VECTOR_TOKENS = frozenset(word.upper() for word in VECTOR_OPTIONS)
KEYWORDS = STATEMENT_TOKENS | DECLARATION_TOKENS | CLAUSE_TOKENS | OTHER_WORDS | VECTOR_TOKENS


@cache
def grammar() -> Lark:
    """Return the LALR parser of `grammar.lark`, which the package carries."""
    text = files("interv.dsl").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(
        text,
        parser="lalr",
        lexer="basic",
        start=["document", "expression", "trivia"],
        maybe_placeholders=True,
        propagate_positions=True,
    )


def tokenize(source: Source, most: int | None = None) -> tuple[list[Token], list[Token]]:
    """Split a text into its significant tokens and its comments, each in order.

    Raises IntervError E109 where there are more than `most`, without reading on.
    """
    tokens = list(islice(grammar().lex(source.text), None if most is None else most + 1))
    if most is not None and len(tokens) > most:
        raise IntervError("E109", f"'{source.name}' has more than {most} words and signs")
    comments = [token for token in tokens if token.type == "COMMENT"]
    return [token for token in tokens if token.type != "COMMENT"], comments


def span_of(source: Source, token: Token) -> Span:
    """Return where `token` stands."""
    return Span(source, token.start_pos, token.end_pos)


def starts_line(source: Source, tokens: list[Token], index: int) -> bool:
    """Say whether no token stands before this one on its line."""
    if index == 0:
        return True
    return "\n" in source.text[tokens[index - 1].end_pos : tokens[index].start_pos]
