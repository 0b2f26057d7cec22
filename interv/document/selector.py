"""Selectors as data: which tokens an edit or a capture is for."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from interv.document.nodes import Node, Phase, Whole


class Everything(Node):
    """Every token, prompt and generated."""

    kind: Literal["all"] = "all"


class InPhase(Node):
    """`prompt` or `generated`: the tokens of the original prompt, or those after it."""

    kind: Literal["phase"] = "phase"
    phase: Phase


class At(Node):
    """`prompt[i]`, `generated[i]`: one token; a negative prompt index counts from its end."""

    kind: Literal["at"] = "at"
    phase: Phase
    index: Whole


class Slice(Node):
    """`prompt[i:j]`, `generated[i:j]`: half-open; None stands for an open end."""

    kind: Literal["slice"] = "slice"
    phase: Phase
    start: Whole | None = None
    stop: Whole | None = None


class Stride(Node):
    """`generated[i:j:k]`, `prompt[i:j:k]`: every `step`th token from `start` on, before `stop`."""

    kind: Literal["stride"] = "stride"
    phase: Phase
    start: Whole | None = None
    stop: Whole | None = None
    step: Annotated[Whole, Field(ge=1)]


class PositionRange(Node):
    """`first..last` among positions, both ends included."""

    first: Whole
    last: Whole


class Positions(Node):
    """`prompt[0, 4..8, -1]`: the tokens that are listed. A single one is an `At`."""

    kind: Literal["positions"] = "positions"
    phase: Phase
    items: tuple[Whole | PositionRange, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _more_than_one(self) -> Positions:
        if len(self.items) == 1 and isinstance(self.items[0], int):
            raise PydanticCustomError(
                "one_position", "a single position is not a list: it is of kind 'at'"
            )
        return self


TokenId: TypeAlias = Annotated[int, Field(strict=True, ge=0)]
IdSequence: TypeAlias = Annotated[tuple[TokenId, ...], Field(min_length=1)]


class Token(Node):
    """`token(…)`: the current input token is one of these ids (or the id of such a text).

    As a marker of `after`, `before` and `between` it may name sequences of ids, `[5, 6]`.
    """

    kind: Literal["token"] = "token"
    ids: tuple[TokenId | str | IdSequence, ...] = Field(min_length=1)


class After(Node):
    """`after token(…)`: one of these markers ended at an earlier token of the request."""

    kind: Literal["after"] = "after"
    mark: Token


class Before(Node):
    """`before token(…)`: none of these markers has ended at this token or an earlier one."""

    kind: Literal["before"] = "before"
    mark: Token


class Between(Node):
    """`between token(…) and token(…)`: the last marker that ended before this token is a `start`.

    The token that ends an `end` is not between.
    """

    kind: Literal["between"] = "between"
    start: Token
    end: Token


class Not(Node):
    """Tokens that `term` does not select."""

    kind: Literal["not"] = "not"
    term: Selector


class And(Node):
    """Tokens that every term selects."""

    kind: Literal["and"] = "and"
    terms: tuple[Selector, ...] = Field(min_length=2)


class Or(Node):
    """Tokens that at least one term selects."""

    kind: Literal["or"] = "or"
    terms: tuple[Selector, ...] = Field(min_length=2)


Selector: TypeAlias = Annotated[
    Everything
    | InPhase
    | At
    | Slice
    | Stride
    | Positions
    | Token
    | After
    | Before
    | Between
    | Not
    | And
    | Or,
    Field(discriminator="kind"),
]
