"""Texts in `token("…")`: the ids that a model's tokenizer gives them.

One for each text, except in the markers of `after`, `before` and `between`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from interv.document.document import Document, SpecPath
from interv.document.markers import LONGEST_MARKER, Following
from interv.document.selectors import satisfiable, selector_text
from interv.document.spec import (
    After,
    And,
    Before,
    Between,
    Capture,
    Everything,
    Not,
    Or,
    Selector,
    Statement,
    Token,
)
from interv.errors import IntervError, Span, raise_all
from interv.files import MIB, check_regular

# A tokenizer's encoding of a text, without the special tokens that start or end a prompt.
Encode: TypeAlias = Callable[[str], Sequence[int]]

MOST_PIECES_SHOWN = 8
LARGEST_TOKENIZER = 512 * MIB


def resolve_texts(document: Document, encode: Encode | None) -> Document:
    """Return the document with ids in place of texts.

    Each `token(…)` then holds ids only, each once, in the order of their first occurrence; a
    marker holds sequences of ids too. `encode` gives the ids of a text without special tokens;
    None where no tokenizer is known. Raises E213 for a text that is not exactly one token, E214
    for a text without a tokenizer, E851 for a marker of no token or too many.
    """
    return with_ids(document, token_ids(document, encode))


def token_ids(document: Document, encode: Encode | None) -> dict[str, tuple[int, ...]]:
    """Return the ids of every text of a document. Raises E213, E214, E851, each text once."""
    ids: dict[str, tuple[int, ...]] = {}
    errors: list[IntervError] = []
    single = texts(document, markers=False)
    for text, path in texts(document).items():
        path = single.get(text, path)
        span, place = document.span(*path), _place(document, path)
        if encode is None:
            errors.append(_no_tokenizer(text, span, place))
            continue
        pieces = encode(text)
        if text in single and len(pieces) != 1:
            errors.append(_not_one(text, pieces, encode, span, place))
        elif not 1 <= len(pieces) <= LONGEST_MARKER:
            errors.append(_no_marker(text, len(pieces), span, place))
        else:
            ids[text] = tuple(map(int, pieces))
    raise_all(errors)
    return ids


def with_ids(document: Document, ids: Mapping[str, tuple[int, ...]]) -> Document:
    """Return the document with each text replaced by its ids in `ids`."""
    programs = tuple(
        program.model_copy(
            update={"statements": tuple(_statement(one, ids) for one in program.statements)}
        )
        for program in document.spec.programs
    )
    return replace(document, spec=document.spec.model_copy(update={"programs": programs}))


def texts(document: Document, *, markers: bool = True) -> dict[str, SpecPath]:
    """Return every text that a `token(…)` of the document names, and where it stands first.

    Without `markers`, only those that have to be one token.
    """
    found: dict[str, SpecPath] = {}
    for i, program in enumerate(document.spec.programs):
        for j, statement in enumerate(program.statements):
            field = _field(statement)
            path = ("programs", i, "statements", j, field)
            for where, leaf in leaves(path, getattr(statement, field)):
                if isinstance(leaf, Following) and not markers:
                    continue
                for at, token in tokens_of(where, leaf):
                    for k, one in enumerate(token.ids):
                        if isinstance(one, str):
                            found.setdefault(one, (*at, "ids", k))
    return found


def tokens_of(path: SpecPath, leaf: Selector) -> Iterator[tuple[SpecPath, Token]]:
    """Yield each `token(…)` of a part of a selector, markers too, with its path."""
    match leaf:
        case Token():
            yield path, leaf
        case After() | Before():
            yield (*path, "mark"), leaf.mark
        case Between():
            yield (*path, "start"), leaf.start
            yield (*path, "end"), leaf.end


def leaves(path: SpecPath, selector: Selector) -> Iterator[tuple[SpecPath, Selector]]:
    """Yield the parts of a selector that have no parts, with their paths."""
    match selector:
        case Not():
            yield from leaves((*path, "term"), selector.term)
        case And() | Or():
            for i, term in enumerate(selector.terms):
                yield from leaves((*path, "terms", i), term)
        case _:
            yield path, selector


def could_match(selector: Selector) -> bool:
    """Say whether some token could satisfy `selector`, whatever ids its texts turn out to be.

    Exact where it names no text, else it errs towards yes: texts may have one id in common.
    """
    return satisfiable(_widest(selector, negated=False))


def _widest(selector: Selector, *, negated: bool) -> Selector:
    """Return what holds wherever `selector` can hold, or only where it must if `negated`."""
    match selector:
        case Token() | After() | Before() | Between() if _names_text(selector):
            return Not(term=Everything()) if negated else Everything()
        case Not():
            return Not(term=_widest(selector.term, negated=not negated))
        case And() | Or():
            terms = tuple(_widest(term, negated=negated) for term in selector.terms)
            return selector.model_copy(update={"terms": terms})
        case _:
            return selector


def _names_text(leaf: Selector) -> bool:
    return any(isinstance(one, str) for _, token in tokens_of((), leaf) for one in token.ids)


def _field(statement: Statement) -> str:
    return "tokens" if isinstance(statement, Capture) else "when"


def _statement(statement: Statement, ids: Mapping[str, tuple[int, ...]]) -> Statement:
    field = _field(statement)
    return statement.model_copy(update={field: _selector(getattr(statement, field), ids)})


def _selector(selector: Selector, ids: Mapping[str, tuple[int, ...]]) -> Selector:
    match selector:
        case Token():
            return _token(selector, ids)
        case After() | Before():
            return selector.model_copy(update={"mark": _token(selector.mark, ids)})
        case Between(start=start, end=end):
            return Between(start=_token(start, ids), end=_token(end, ids))
        case Not():
            return Not(term=_selector(selector.term, ids))
        case And() | Or():
            terms = tuple(_selector(term, ids) for term in selector.terms)
            return selector.model_copy(update={"terms": terms})
        case _:
            return selector


def _token(token: Token, ids: Mapping[str, tuple[int, ...]]) -> Token:
    found = (ids[one] if isinstance(one, str) else one for one in token.ids)
    plain = (one[0] if isinstance(one, tuple) and len(one) == 1 else one for one in found)
    return Token(ids=tuple(dict.fromkeys(plain)))


def token_text(text: str) -> str:
    """Print a text as the language asks for it: `token("yes")`."""
    return selector_text(Token(ids=(text,)))


def _place(document: Document, path: SpecPath) -> tuple[str, ...]:
    if document.span(*path) is not None:
        return ()
    return (f"in {document.name}: {'.'.join(str(part) for part in path)}",)


def _no_tokenizer(text: str, span: Span | None, place: tuple[str, ...]) -> IntervError:
    return IntervError(
        "E214",
        f"{token_text(text)} needs the model's tokenizer, and none is known",
        span,
        "no tokenizer",
        notes=place,
        helps=("give the ids of the tokens: token(2, 15)",),
    )


def _not_one(
    text: str, pieces: Sequence[int], encode: Encode, span: Span | None, place: tuple[str, ...]
) -> IntervError:
    shown = ", ".join(map(str, pieces[:MOST_PIECES_SHOWN]))
    more = ", …" if len(pieces) > MOST_PIECES_SHOWN else ""
    notes = (f"its tokens: {shown}{more}", *place) if pieces else place
    near = [one for one in _variants(text) if len(encode(one)) == 1]
    helps = [f"did you mean {token_text(one)}? it is one token" for one in near[:1]]
    if pieces and not near:
        helps = ["a selector sees one token at a time: name one of these by its id"]
    return IntervError(
        "E213",
        f"{token_text(text)} is {len(pieces)} tokens of this model, not 1",
        span,
        f"{len(pieces)} tokens",
        notes=notes,
        helps=helps,
    )


def _no_marker(text: str, count: int, span: Span | None, place: tuple[str, ...]) -> IntervError:
    return IntervError(
        "E851",
        f"{token_text(text)} is {count} tokens of this model",
        span,
        f"{count} tokens",
        notes=(f"a marker has 1 to {LONGEST_MARKER} tokens", *place),
    )


def _variants(text: str) -> list[str]:
    """Return what else may have been meant; most tokenizers join a space to the word after it."""
    others = (f" {text}", text.lstrip(" "), text.strip(), f" {text.strip()}")
    return [one for one in dict.fromkeys(others) if one.strip() and one != text]


def find_encoder(model: str) -> Encode | None:
    """Return the tokenizer of a model as a function, or None where there is none at hand.

    `model` is a folder, a file in it, or a name whose `tokenizer.json` the Hugging Face cache
    holds; nothing is downloaded. Raises E533 where the file cannot be read.
    """
    path = _tokenizer_file(model)
    if path is None:
        return None
    from tokenizers import Tokenizer

    try:
        check_regular(path, LARGEST_TOKENIZER)
        tokenizer = Tokenizer.from_file(str(path))
    except OSError as error:
        raise IntervError("E533", f"'{path}' cannot be read: {error.strerror}") from error
    except Exception as error:  # the library raises nothing narrower
        raise IntervError("E533", f"'{path}' is not a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(text: str) -> Sequence[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    return encode


def _tokenizer_file(model: str) -> Path | None:
    path = Path(model)
    if path.exists():
        file = (path if path.is_dir() else path.parent) / "tokenizer.json"
        return file if file.is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model, "tokenizer.json")
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None
