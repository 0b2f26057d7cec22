"""Sites, layers and selectors in Python: `post_block[12]`, `prompt[-1] | generated`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import TypeAlias

from interv.document.selectors import selector_text
from interv.document.spec import (
    After,
    And,
    At,
    Before,
    Between,
    Everything,
    InPhase,
    LayerRange,
    Not,
    Or,
    Phase,
    PositionRange,
    Positions,
    Selector,
    SiteRef,
    Slice,
    Stride,
    Token,
)
from interv.document.validation import validate
from interv.errors import IntervError

Layer: TypeAlias = int | str | LayerRange | EllipsisType


def layers(first: int, last: int) -> LayerRange:
    """Name the layers `first` to `last`, both included."""
    return validate(LayerRange, {"first": first, "last": last})


@dataclass(frozen=True, slots=True)
class SiteName:
    """A site to index with layers: `post_block[12]`, `post_block[layers(10, 20), -1]`.

    Text like `"10..20"` is a range too; `...` and `"*"` are every layer.
    """

    name: str

    def __getitem__(self, index: Layer | tuple[Layer, ...]) -> SiteRef:
        items = index if isinstance(index, tuple) else (index,)
        return validate(SiteRef, {"name": self.name, "layers": [_layer(item) for item in items]})


def _layer(item: object) -> object:
    if item is ...:
        return "*"
    if isinstance(item, slice):
        raise IntervError(
            "E211",
            "a slice of layers would hide whether its end is included",
            helps=(f"write layers({item.start}, {item.stop}), which includes both ends",),
        )
    if isinstance(item, str) and ".." in item:
        first, _, last = item.partition("..")
        try:
            return LayerRange(first=int(first), last=int(last))
        except ValueError:
            raise IntervError("E211", f"'{item}' is not a range of layers") from None
    return item


pre_attn = SiteName("pre_attn")
post_attn = SiteName("post_attn")
post_block = SiteName("post_block")


@dataclass(frozen=True, slots=True)
class Select:
    """A selector that combines with `&`, `|` and `~`."""

    selector: Selector

    def __and__(self, other: Select) -> Select:
        # A chain a & b & c is one group, as in the text.
        first = self.selector.terms if isinstance(self.selector, And) else (self.selector,)
        return Select(And(terms=(*first, other.selector)))

    def __or__(self, other: Select) -> Select:
        first = self.selector.terms if isinstance(self.selector, Or) else (self.selector,)
        return Select(Or(terms=(*first, other.selector)))

    def __invert__(self) -> Select:
        return Select(Not(term=self.selector))

    def __str__(self) -> str:
        return selector_text(self.selector)


@dataclass(frozen=True, slots=True)
class SelectPhase(Select):
    """`prompt` or `generated`, which can be indexed: `prompt[-1]`, `generated[:16]`.

    `generated[2::4]` is every fourth token from the third on; `prompt[0, "4..8", -1]` a list, in
    which a range is a text and includes both ends.
    """

    phase: Phase

    def __getitem__(self, index: int | str | slice | tuple[int | str, ...]) -> Select:
        if isinstance(index, tuple | str):
            items = index if isinstance(index, tuple) else (index,)
            data = {"phase": self.phase, "items": [_position(item) for item in items]}
            return Select(validate(Positions, data))
        if not isinstance(index, slice):
            return Select(validate(At, {"phase": self.phase, "index": index}))
        data = {"phase": self.phase, "start": index.start, "stop": index.stop}
        if index.step is None:
            return Select(validate(Slice, data))
        return Select(validate(Stride, data | {"step": index.step}))


def _position(item: object) -> object:
    if isinstance(item, slice):
        raise IntervError(
            "E211",
            "in a list of positions a slice would hide whether its end is included",
            helps=('write a range as a text, both ends included: prompt[0, "4..8", -1]',),
        )
    if not isinstance(item, str):
        return item
    first, _, last = item.partition("..")
    try:
        return PositionRange(first=int(first), last=int(last))
    except ValueError:
        raise IntervError("E211", f"'{item}' is not a range of positions") from None


everything = Select(Everything())
prompt = SelectPhase(InPhase(phase="prompt"), "prompt")
generated = SelectPhase(InPhase(phase="generated"), "generated")


@dataclass(frozen=True, slots=True)
class SelectToken(Select):
    """`token(…)`, which can also be a marker: `after(token("</think>"))`."""

    token: Token


def token(*ids: int | str | Sequence[int]) -> SelectToken:
    """Select the tokens whose input id is one of `ids` (or the id of such a text).

    As a marker, it may name sequences of ids and texts of several tokens.
    """
    found = validate(Token, {"ids": ids})
    return SelectToken(found, found)


def after(mark: SelectToken) -> Select:
    """Select the tokens that follow the first `mark` of a request."""
    return Select(After(mark=mark.token))


def before(mark: SelectToken) -> Select:
    """Select the tokens until the first `mark` of a request ends; its last token is left out."""
    return Select(Before(mark=mark.token))


def between(start: SelectToken, end: SelectToken) -> Select:
    """Select the tokens that follow a `start` until an `end` ends; its last token is left out."""
    return Select(Between(start=start.token, end=end.token))


def all_of(*terms: Select) -> Select:
    """Select what every term selects, as one group."""
    return Select(validate(And, {"terms": [term.selector for term in terms]}))


def any_of(*terms: Select) -> Select:
    """Select what at least one term selects, as one group."""
    return Select(validate(Or, {"terms": [term.selector for term in terms]}))
