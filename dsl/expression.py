"""What one request asks for: `calm*1.5 + formal`, or `off`."""

from __future__ import annotations

from collections.abc import Collection

from lark import Token, Tree

from interv.document.checks import LARGEST_FLOAT, OFF
from interv.document.spec import RequestExpression, RequestTerm
from interv.document.wording import list_names
from interv.dsl.diagnostics import explain
from interv.dsl.parser import parse
from interv.dsl.values import Values
from interv.errors import IntervError, Label, Source, Span, by_place, raise_all, suggest

MOST_CHARACTERS = 4096
MOST_TERMS = 32
LONGEST_NAME = 128


def parse_expression(
    text: str, programs: Collection[str] | None = None, name: str = "<request>"
) -> RequestExpression:
    """Parse `NAME [* NUMBER] {+ NAME [* NUMBER]}` or `off`, which has no terms.

    Raises E1xx for its form, and E205 for a name that is not in `programs`, where given.
    """
    source = Source(name, text)
    if len(text) > MOST_CHARACTERS:
        message = f"an expression has at most {MOST_CHARACTERS} characters, this one {len(text)}"
        raise IntervError("E109", message)
    parsed = parse(source, "expression")
    raise_all([explain(failure) for failure in parsed.failures])
    assert parsed.tree is not None
    values = Values(source)
    terms = [(one, _term(one, values)) for one in parsed.tree.children]
    _check(terms, values, programs)
    raise_all(sorted(values.errors, key=by_place))
    if terms[0][1].program == OFF:
        return RequestExpression()
    return RequestExpression(terms=tuple(term for _, term in terms))


def _term(node: Tree[Token], values: Values) -> RequestTerm:
    name, _, number = (*node.children, None, None)[:3]
    if len(name) > LONGEST_NAME:
        message = f"a name has at most {LONGEST_NAME} characters"
        values.errors.append(IntervError("E109", message, values.span(name), "too long"))
        name = "_"
    multiplier = 1.0 if number is None else values.number(number)
    if abs(multiplier) > LARGEST_FLOAT:
        error = IntervError("E105", f"{number} is too large", values.span(number), "too large")
        values.errors.append(error)
    return RequestTerm(program=str(name), multiplier=multiplier)


def _check(
    terms: list[tuple[Tree[Token], RequestTerm]], values: Values, programs: Collection[str] | None
) -> None:
    errors = values.errors
    if len(terms) > MOST_TERMS:
        message = f"an expression has at most {MOST_TERMS} terms, this one {len(terms)}"
        errors.append(IntervError("E109", message, values.span(terms[MOST_TERMS][0]), "too many"))
        return
    first: dict[str, Span] = {}
    for node, term in terms:
        name = node.children[0]
        span = values.span(name)
        alone = len(terms) == 1 and node.children[-1] is None
        if term.program == OFF and alone:
            continue
        if term.program == OFF:
            message = "'off' stands alone: it cannot be multiplied or added"
            errors.append(IntervError("E212", message, span, "not a program"))
        elif term.program in first:
            more = (Label(first[term.program], "first here"),)
            message = f"program '{term.program}' is named twice"
            errors.append(IntervError("E206", message, span, "again", more=more))
        elif programs is not None and term.program not in programs:
            errors.append(_unknown(term.program, span, programs))
        first.setdefault(term.program, span)


def _unknown(name: str, span: Span, programs: Collection[str]) -> IntervError:
    listed = f"programs here: {list_names(programs)}" if programs else "no program is declared"
    return IntervError(
        "E205",
        f"no program is called '{name}'",
        span,
        "unknown program",
        notes=(listed,),
        helps=suggest(name, programs),
    )
