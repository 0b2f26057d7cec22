"""Format a text: same document, same comments, one layout.

Works on tokens, so numbers and texts stay as they were written. Clauses are put in their
canonical order, comments inside a statement move above it, runs of blank lines become one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lark import Token, Tree

from interv.dsl.clauses import CLAUSES, VECTOR_OPTIONS
from interv.dsl.diagnostics import explain
from interv.dsl.layout import Line, block, lay_out, statement_cells
from interv.dsl.lower import Lowering
from interv.dsl.parser import Parsed, parse
from interv.dsl.syntax import KEYWORDS
from interv.dsl.values import Values
from interv.errors import Source, raise_all

TIGHT_BEFORE = frozenset({"RSQB", "RPAR", "COMMA", "DOTS", "COLON"})
TIGHT_AFTER = frozenset({"LSQB", "LPAR", "DOTS", "COLON"})
GROUPING = frozenset({"AND", "OR", "NOT", "WHEN", "TOKENS"})


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that stands on a line of its own, and where it stood: characters [start, end)."""

    start: int
    end: int
    line: Line
    opens: bool = False
    closes: bool = False


def format_text(text: str, name: str = "<text>") -> str:
    """Return `text` in the canonical layout; formatting twice changes nothing.

    Raises the syntax errors (E1xx) of a text that is not a document.
    """
    source = Source(name, text)
    parsed = parse(source)
    raise_all([explain(failure) for failure in parsed.failures])
    assert parsed.tree is not None
    lowering = Lowering(Values(source))
    lowering.document(parsed.tree)
    raise_all([error for error in lowering.errors if error.code.startswith("E1")])
    pieces = _with_comments(text, list(_pieces(parsed, parsed.tree)), parsed.comments)
    return lay_out(_nested(text, pieces))


def _with_comments(
    text: str, pieces: Sequence[Piece], comments: Sequence[Token]
) -> Iterator[Piece]:
    """Merge comments in: beside the piece that they trail, else as pieces of their own."""
    rest = list(comments)
    for i, piece in enumerate(pieces):
        while rest and rest[0].start_pos < piece.end:
            comment = rest.pop(0)
            inside = comment.start_pos > piece.start
            yield _comment(comment, piece.start if inside else None)
        following = pieces[i + 1].start if i + 1 < len(pieces) else len(text)
        if (
            rest
            and rest[0].start_pos < following
            and "\n" not in text[piece.end : rest[0].start_pos]
        ):
            comment = rest.pop(0)
            line = replace(piece.line, comment=comment.rstrip())
            piece = replace(piece, line=line, end=comment.end_pos)
        yield piece
    yield from (_comment(comment, None) for comment in rest)


def _comment(comment: Token, hoisted_to: int | None) -> Piece:
    start = comment.start_pos if hoisted_to is None else hoisted_to
    end = comment.end_pos if hoisted_to is None else hoisted_to
    return Piece(start, end, Line((), "plain", comment=comment.rstrip()))


def _nested(text: str, pieces: Iterator[Piece]) -> Iterator[Line]:
    """Give each line its depth, and the blank line before it if there was one."""
    depth, last, fresh = 0, 0, True
    for piece in pieces:
        depth -= piece.closes
        blank = text.count("\n", last, piece.start) > 1 and not fresh and not piece.closes
        yield replace(piece.line, depth=depth, blank_before=blank)
        depth += piece.opens
        last, fresh = piece.end, piece.opens


@dataclass(frozen=True, slots=True)
class Words:
    """The tokens of a text, printed with canonical spacing."""

    tokens: Sequence[Token]
    starts: Sequence[int]

    def of(self, node: Tree[Token] | Token, names: bool = False) -> str:
        """Print the tokens that `node` covers; with `names`, no word of them is a keyword."""
        meta = node if isinstance(node, Token) else node.meta
        end = getattr(meta, "container_end_pos", meta.end_pos)
        first = bisect_left(self.starts, getattr(meta, "container_start_pos", meta.start_pos))
        return self.join(self.tokens[first : bisect_left(self.starts, end)], names)

    def join(self, tokens: Sequence[Token], names: bool = False) -> str:
        """Print tokens with canonical spacing; with `names`, no word of them is a keyword."""
        text, previous = "", ""
        for token in tokens:
            kind = "NAME" if names and token.type in KEYWORDS else token.type
            text += f"{_gap(previous, kind)}{token}" if previous else str(token)
            previous = kind
        return text


def _gap(before: str, after: str) -> str:
    if before == "COMMA" and after == "RSQB":
        return " "  # an open bound: in [-1.0, ]
    tight = before in TIGHT_AFTER and after != "COMMA"
    tight = tight or (before == "LSQB" and after == "COMMA") or after in TIGHT_BEFORE
    tight = tight or (after == "LSQB" and before not in ("IN", "COMMA"))
    tight = tight or (after == "LPAR" and before not in GROUPING)
    return "" if tight else " "


def _pieces(parsed: Parsed, tree: Tree[Token]) -> Iterator[Piece]:
    words = Words(parsed.tokens, [token.start_pos for token in parsed.tokens])
    interv, version, *items = tree.children
    header = Line((words.join([interv, version]),), "plain")
    yield Piece(interv.start_pos, version.end_pos, header)
    for item in items:
        match str(item.data):
            case "program":
                yield from _block(
                    words, item, [_statement(words, one) for one in item.children[2:]]
                )
            case "kv":
                yield from _kv(parsed, words, item)
            case "conflict" | "default":
                yield _piece(item, Line((words.of(item),), "plain"))
            case _:
                yield _piece(item, _declaration(words, item))


def _piece(item: Tree[Token], line: Line) -> Piece:
    return Piece(item.meta.start_pos, item.meta.end_pos, line)


def _declaration(words: Words, item: Tree[Token]) -> Line:
    word, name, *rest = item.children
    if item.data == "vector":
        path, *options = rest
        ordered = sorted(options, key=lambda one: VECTOR_OPTIONS.index(str(one.children[0])))
        value = " ".join(["=", str(path), *(words.of(option) for option in ordered)])
    else:
        value = words.of(item, names=True).removeprefix(f"{word} {name} ")
    return Line((f"{word} {name}", value), "declaration")


def _block(words: Words, item: Tree[Token], inner: Sequence[Piece]) -> Iterator[Piece]:
    word, name = item.children[:2]
    brace = words.tokens[bisect_left(words.starts, name.end_pos)]
    head = Line((f"{word} {name} {{",), "plain")
    yield Piece(item.meta.start_pos, brace.end_pos, head, opens=True)
    yield from inner
    yield Piece(item.meta.end_pos - 1, item.meta.end_pos, Line(("}",), "plain"), closes=True)


def _kv(parsed: Parsed, words: Words, item: Tree[Token]) -> Iterator[Piece]:
    options = item.children[2:]
    start, end = item.meta.start_pos, item.meta.end_pos
    text = block(f"kv {item.children[1]}", [words.of(option) for option in options])
    if text is None or any(start < comment.start_pos < end for comment in parsed.comments):
        lines = [_piece(option, Line((words.of(option),), "plain")) for option in options]
        yield from _block(words, item, lines)
    else:
        yield _piece(item, Line((text,), "plain"))


def _statement(words: Words, node: Tree[Token]) -> Piece:
    op = str(node.children[0])
    if op in ("conflict", "kv"):
        return _piece(node, Line((words.of(node),), "plain"))
    clauses = list(node.children[1:])
    target = "" if op == "capture" else str(clauses.pop(0))
    texts = {str(clause.data): _clause(words, clause) for clause in clauses}
    return _piece(node, Line(statement_cells(op, target, texts), "edit"))


def _clause(words: Words, clause: Tree[Token]) -> str:
    if clause.data != "gate":
        return words.of(clause)
    word, vector, *parts = clause.children
    texts = {str(part.data): words.of(part) for part in parts}
    return " ".join([word, vector, *(texts[one] for one in CLAUSES["gate"] if one in texts)])
