"""Drive the LALR tables over a text, and go on after an error so that one run finds several.

A failed parse is repaired by deleting the statement or declaration it stands in (or by closing
a block that was left open) and parsing again, so what remains is always a proper tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lark import Token, Tree, UnexpectedToken
from lark.parsers.lalr_interactive_parser import InteractiveParser

from interv.dsl.syntax import (
    CLAUSE_TOKENS,
    DECLARATION_TOKENS,
    EDIT_TOKENS,
    KEYWORDS,
    STATEMENT_TOKENS,
    grammar,
    starts_line,
    tokenize,
)
from interv.errors import Source

MOST_ERRORS = 20


@dataclass(frozen=True, slots=True)
class Failure:
    """Where a parse stopped: `tokens[index]`, or the end of the text."""

    source: Source
    tokens: tuple[Token, ...]
    index: int
    begin: int  # where the statement or declaration around it starts
    block: int | None  # the keyword of the block around it, if one is open
    state: int
    expected: frozenset[str]

    @property
    def found(self) -> Token | None:
        """Return the token that does not belong, None at the end of the text."""
        return self.tokens[self.index] if self.index < len(self.tokens) else None

    @property
    def previous(self) -> Token | None:
        """Return the token before it."""
        return self.tokens[self.index - 1] if self.index else None

    @property
    def on_new_line(self) -> bool:
        """Say whether the token is the first of its line."""
        return self.found is None or starts_line(self.source, list(self.tokens), self.index)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a text holds: its tree where it could be had, and every failure on the way."""

    source: Source
    tree: Tree[Token] | None
    tokens: tuple[Token, ...]
    comments: tuple[Token, ...]
    failures: tuple[Failure, ...]
    broken: frozenset[str]  # names whose declarations could not be read


@dataclass(frozen=True, slots=True)
class Limits:
    """How much work a text may make: its tokens, and its failures, after each a parse begins."""

    tokens: int | None = None
    failures: int = MOST_ERRORS


UNLIMITED = Limits()


def parse(source: Source, start: str = "document", limits: Limits = UNLIMITED) -> Parsed:
    """Parse a whole text; failures are returned, in the order they were met.

    Raises IntervError E109 for a text of more tokens than `limits` say.
    """
    tokens, comments = tokenize(source, limits.tokens)
    failures: list[Failure] = []
    broken: set[str] = set()
    result = run(source, tokens, start)
    while isinstance(result, Failure):
        failures.append(result)
        if len(failures) == limits.failures or start != "document":
            break
        tokens, lost = _repair(result)
        broken |= lost
        result = run(source, tokens, start)
    tree = None if isinstance(result, Failure) else result
    return Parsed(source, tree, tuple(tokens), tuple(comments), tuple(failures), frozenset(broken))


def run(source: Source, tokens: Sequence[Token], start: str) -> Tree[Token] | Failure:
    """Parse tokens once: the tree, or the first failure."""
    tokens = list(tokens)
    parser = grammar().parse_interactive(start=start)
    begin, block = 0, None
    for index in range(len(tokens)):
        before = parser.choices()
        token = _as_name(source, tokens, index, before, start)
        if token.type in STATEMENT_TOKENS | DECLARATION_TOKENS and token.type in before:
            begin = index
        try:
            parser.feed_token(token)
        except UnexpectedToken:
            return _failure(source, tokens, index, begin, block, start)
        block = {"LBRACE": begin, "RBRACE": None}.get(token.type, block)
    try:
        return parser.feed_eof()
    except UnexpectedToken:
        return _failure(source, tokens, len(tokens), begin, block, start)


def _as_name(
    source: Source, tokens: list[Token], index: int, choices: dict[str, object], start: str
) -> Token:
    """Read a keyword as a name where only a name can stand.

    Not where it plainly starts the next thing (`at` with nothing behind it, and then a line
    that begins with `steer`), so that the error is shown where something is missing.
    """
    token = tokens[index]
    if token.type in choices or "NAME" not in choices or token.type not in KEYWORDS:
        return token
    following = tokens[index + 1].type if index + 1 < len(tokens) else ""
    starter = start == "document" and token.type in STATEMENT_TOKENS | DECLARATION_TOKENS
    if starter and starts_line(source, tokens, index) and following != "EQUAL":
        return token
    named = index > 0 and tokens[index - 1].type in EDIT_TOKENS | {"BY", "TOWARDS"}
    if named and token.type in CLAUSE_TOKENS and following not in CLAUSE_TOKENS | {"EQUAL"}:
        return token
    return Token.new_borrow_pos("NAME", token.value, token)


def _failure(
    source: Source, tokens: list[Token], index: int, begin: int, block: int | None, start: str
) -> Failure:
    # A rejected token has already reduced what stood before it, so the state is made anew.
    parser = _before(source, tokens, index, start)
    state = parser.parser_state.position
    expected = frozenset(parser.accepts())
    return Failure(source, tuple(tokens), index, begin, block, state, expected)


def _before(source: Source, tokens: list[Token], index: int, start: str) -> InteractiveParser:
    parser = grammar().parse_interactive(start=start)
    for i in range(index):
        parser.feed_token(_as_name(source, tokens, i, parser.choices(), start))
    return parser


def _repair(failure: Failure) -> tuple[list[Token], set[str]]:
    """Return tokens without the failure, and the names whose declarations went with it."""
    tokens, index = list(failure.tokens), failure.index
    if "INTERV" in failure.expected:
        misspelt = len(tokens) > 1 and tokens[0].type == "NAME" and tokens[1].type == "NUMBER"
        rest = tokens[2:] if misspelt else tokens
        return [Token("INTERV", "interv", 0, end_pos=0), _one(), *rest], set()
    if failure.previous is not None and failure.previous.type == "INTERV":
        return [tokens[0], _one(), *tokens[1:]], set()
    closes = failure.found is None or failure.found.type in DECLARATION_TOKENS
    if failure.block is not None and closes and "RBRACE" in failure.expected:
        return [*tokens[:index], Token("RBRACE", "}", 0, end_pos=0), *tokens[index:]], set()
    first, last = _damage(failure)
    lost = tokens[first:last]
    named = {
        str(name)
        for word, name in pairwise(lost)
        if word.type in DECLARATION_TOKENS - {"CONFLICT", "DEFAULT"}
    }
    return tokens[:first] + tokens[last:], named


def _one() -> Token:
    return Token("NUMBER", "1", 0, end_pos=0)


def _damage(failure: Failure) -> tuple[int, int]:
    """Return the range of tokens to give up: the construct around the failure, no more."""
    tokens, index = failure.tokens, failure.index
    in_program = failure.block is not None and tokens[failure.block].type == "PROGRAM"
    complete = bool(failure.expected & (STATEMENT_TOKENS | {"$END"}))
    # A stranger at the start of a line does not speak against the line before it.
    first = index if complete and failure.on_new_line else failure.begin
    stop = STATEMENT_TOKENS | DECLARATION_TOKENS | {"RBRACE"} if in_program else frozenset()
    if in_program and failure.begin == failure.block:
        first = index  # nothing of the program's body is read yet
    elif failure.block is not None and not in_program:
        first = failure.block
    if not in_program and failure.found is not None and failure.found.type == "RBRACE":
        return index, index + 1
    last = max(index, first + 1)
    if in_program and failure.found is not None and failure.found.type == "LBRACE":
        # What stands in braces inside of a program goes as a whole.
        closing = (i for i in range(index, len(tokens)) if tokens[i].type == "RBRACE")
        last = next(closing, len(tokens) - 1) + 1
    while last < len(tokens) and tokens[last].type not in stop and not _declares(tokens, last):
        last += 1
    return first, last


def _declares(tokens: Sequence[Token], index: int) -> bool:
    """Say whether a declaration plainly begins here.

    A `conflict`, or a `kv` without braces, may belong to a program whose head could not be read.
    """
    word = tokens[index].type
    policy = word == "KV" and [one.type for one in tokens[index + 2 : index + 3]] == ["LBRACE"]
    return policy or word in DECLARATION_TOKENS - STATEMENT_TOKENS
