"""Lower the selector part of a syntax tree."""

from __future__ import annotations

from typing import Any

from lark import Token, Tree

from interv.document.checks import DEEPEST_SELECTOR
from interv.document.document import SpecPath
from interv.dsl.values import Values
from interv.errors import IntervError, Span


def lower_selector(
    node: Tree[Token], values: Values, spans: dict[SpecPath, Span], path: SpecPath, depth: int = 0
) -> dict[str, Any]:
    """Return a selector as plain data; the spans of its parts go under `path`.

    What is wrong goes to `values.errors`, and what stands in for it means nothing.
    """
    spans[path] = values.span(node)
    if depth == DEEPEST_SELECTOR:
        values.errors.append(
            IntervError(
                "E109",
                "this selector is too large",
                spans[path],
                "too deep",
                notes=(f"a selector nests at most {DEEPEST_SELECTOR} levels",),
            )
        )
        return {"kind": "all"}
    match str(node.data):
        case "everything":
            return {"kind": "all"}
        case "negated":
            inner = lower_selector(node.children[1], values, spans, (*path, "term"), depth + 1)
            return {"kind": "not", "term": inner}
        case "all_of" | "any_of" as kind:
            terms = [
                lower_selector(term, values, spans, (*path, "terms", i), depth + 1)
                for i, term in enumerate(node.children[::2])
            ]
            return {"kind": "and" if kind == "all_of" else "or", "terms": terms}
        case "token":
            return _token(node, values, spans, path)
        case "follows" | "precedes" as kind:
            marker = _token(node.children[1], values, spans, (*path, "mark"))
            return {"kind": "after" if kind == "follows" else "before", "mark": marker}
        case "between":
            start, end = (
                _token(one, values, spans, (*path, name))
                for one, name in ((node.children[1], "start"), (node.children[3], "end"))
            )
            return {"kind": "between", "start": start, "end": end}
        case "positions":
            for i, one in enumerate(node.children[1:]):
                spans[*path, "items", i] = values.span(one)
            items = [_position(one, values) for one in node.children[1:]]
            return {"kind": "positions", "phase": str(node.children[0]), "items": items}
        case _:
            return _place(node, values)


def _place(node: Tree[Token], values: Values) -> dict[str, Any]:
    phase = str(node.children[0])
    numbers = [None if one is None else values.integer(one) for one in node.children[1:]]
    match str(node.data):
        case "index":
            return {"kind": "at", "phase": phase, "index": numbers[0]}
        case "slice":
            return {"kind": "slice", "phase": phase, "start": numbers[0], "stop": numbers[1]}
        case "stride":
            bounds = dict(zip(("start", "stop", "step"), numbers, strict=True))
            return {"kind": "stride", "phase": phase, **bounds}
        case _:
            return {"kind": "phase", "phase": phase}


def _token(
    node: Tree[Token], values: Values, spans: dict[SpecPath, Span], path: SpecPath
) -> dict[str, Any]:
    spans[path] = values.span(node)
    for i, one in enumerate(node.children[1:]):
        spans[*path, "ids", i] = values.span(one)
    return {"kind": "token", "ids": [_id(one, values) for one in node.children[1:]]}


def _position(node: Tree[Token] | Token, values: Values) -> int | dict[str, int]:
    if isinstance(node, Token):
        return values.integer(node)
    first, _, last = node.children
    return {"first": values.integer(first), "last": values.integer(last)}


def _id(node: Tree[Token], values: Values) -> int | str | list[int]:
    token = node.children[0]
    if isinstance(token, Tree):
        return [_number(one, values) for one in token.children]
    return values.text(token) if token.type == "STRING" else _number(token, values)


def _number(token: Token, values: Values) -> int:
    value = values.integer(token)
    if value < 0:
        values.errors.append(
            IntervError("E207", f"{token} is not a token id", values.span(token), "below 0")
        )
        return 0
    return value
