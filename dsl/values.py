"""Numbers and texts of the language, read from tokens."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from lark import Token, Tree

from interv.errors import IntervError, Source, Span

# Longer ones are refused before Python spends quadratic time on their digits.
MOST_DIGITS = 40


@dataclass(slots=True)
class Values:
    """Read the values of one source; what cannot be read is noted and stands as 1 or ''."""

    source: Source
    errors: list[IntervError] = field(default_factory=list)

    def span(self, node: Tree[Token] | Token) -> Span:
        """Return where a token or a tree stands."""
        place = node if isinstance(node, Token) else node.meta
        return Span(self.source, place.start_pos, place.end_pos)

    def number(self, token: Token) -> float:
        """Read a finite number."""
        value = float(token)
        if math.isinf(value):
            self._refuse("E105", f"{short(token)} is too large", token, "too large")
            return math.copysign(1.0, value)
        return value

    def integer(self, token: Token) -> int:
        """Read a whole number."""
        digits = token.lstrip("+-")
        if not digits.isdecimal():
            self._refuse("E105", f"{short(token)} is not a whole number", token, "not whole")
            return 1
        if len(digits) > MOST_DIGITS:
            self._refuse("E105", f"{short(token)} is too large", token, "too large")
            return 1
        return int(token)

    def text(self, token: Token) -> str:
        """Read a text in quotes; its escapes are those of JSON."""
        try:
            value = json.loads(token, strict=False)
        except json.JSONDecodeError as error:
            at = Span(self.source, token.start_pos + error.pos, token.start_pos + error.pos + 1)
            notes = ('escapes: \\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX',)
            message = "this escape is unknown"
            self.errors.append(IntervError("E103", message, at, "unknown escape", notes=notes))
            return ""
        assert isinstance(value, str)
        return value

    def scalar(self, token: Token) -> bool | int | float | str:
        """Read the value of an option: a number, a text, `true`, `false` or a bare word."""
        match token.type:
            case "STRING":
                return self.text(token)
            case "NUMBER":
                whole = token.lstrip("+-").isdecimal()
                return self.integer(token) if whole else self.number(token)
            case _:
                word = str(token)
                return {"true": True, "false": False}.get(word, word)

    def _refuse(self, code: str, message: str, token: Token, label: str) -> None:
        self.errors.append(IntervError(code, message, self.span(token), label))


def short(token: Token) -> str:
    """Return a token's text, cut where nobody would read on."""
    text = str(token)
    return text if len(text) <= 24 else f"{text[:20]}…"
