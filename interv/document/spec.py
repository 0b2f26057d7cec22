"""The document as data: frozen pydantic models that load from and dump to JSON and YAML.

A `Spec` says what the text says and nothing else: no spans, no resolved layers, no tensors.
Text, builder and `Spec` convert into each other without loss.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from interv.document.nodes import (
    Conflict as Conflict,
    Degrees as Degrees,
    Finite as Finite,
    Flag as Flag,
    More as More,
    Name as Name,
    Node as Node,
    Numbering as Numbering,
    Part as Part,
    Phase as Phase,
    Rate as Rate,
    Scalar as Scalar,
    SiteName as SiteName,
    Whole as Whole,
)
from interv.document.selector import (
    After as After,
    And as And,
    At as At,
    Before as Before,
    Between as Between,
    Everything as Everything,
    IdSequence as IdSequence,
    InPhase as InPhase,
    Not as Not,
    Or as Or,
    PositionRange as PositionRange,
    Positions as Positions,
    Selector as Selector,
    Slice as Slice,
    Stride as Stride,
    Token as Token,
    TokenId as TokenId,
)

# Places ---------------------------------------------------------------------


class LayerRange(Node):
    """`first..last`, both ends included; negative layers count from the end."""

    first: Whole
    last: Whole


class SiteRef(Node):
    """`post_block[10..20, -1]`: a site at some layers."""

    name: SiteName
    layers: tuple[Literal["*"] | Whole | LayerRange, ...] = Field(min_length=1)


# Statements -----------------------------------------------------------------


class Gate(Node):
    """`gate w at site sharpness k threshold t`: g = sigmoid(k (x - t)) with x = w·h.

    Of `cosine` x is `w·h / (‖w‖·‖h‖)`, of `absolute` the absolute value. With `above` or `below`
    the gate is a step: g = 1 where above < x < below, 0 elsewhere; a missing bound is open.
    `site` is None where the probe is read at the edit's own site.
    """

    vector: Name
    site: SiteRef | None = None
    absolute: Flag = False
    cosine: Flag = False
    sharpness: Finite = 1.0
    threshold: Finite = 0.0
    above: Finite | None = None
    below: Finite | None = None


class Edit(Node):
    """What all edits of the stream share: where, for which tokens, behind which gate.

    Generated token i gets `decay` to the power of i of what the edit does, a prompt token all.
    """

    at: SiteRef
    when: Selector = Everything()
    gate: Gate | None = None
    decay: Rate = 1.0


class Steer(Edit):
    """`h' = h + scale·v`; under `by_norm` `h + scale·‖h‖·û`.

    Under `keep_norm` it is scaled back to the norm of `h`.
    """

    op: Literal["steer"] = "steer"
    vector: Name
    scale: Finite = 1.0
    by_norm: Flag = False
    keep_norm: Flag = False


class Cap(Edit):
    """`h' = h + strength·(clamp(h·û, low, high) - h·û)·û`; a missing bound is open."""

    op: Literal["cap"] = "cap"
    vector: Name
    low: Finite | None = None
    high: Finite | None = None
    strength: Part = 1.0


class Ablate(Edit):
    """`h' = h - strength·(h·û)·û`: strength 1 removes the component, 0 leaves it.

    Above 1 the strength goes only with `over`. Under `keep_norm` the result is scaled back to the
    norm of `h`.
    """

    op: Literal["ablate"] = "ablate"
    vector: Name
    over: Flag = False
    strength: More = 1.0
    keep_norm: Flag = False

    @field_validator("strength")
    @classmethod
    def _says_over(cls, strength: float, info: ValidationInfo) -> float:
        if strength > 1 and not info.data.get("over", True):
            raise PydanticCustomError("over", "strength is above 1")
        return strength


class Replace(Edit):
    """`h' = h + strength·(scale·v - h)`: the stream is set to a direction.

    With `by` only the part along `v` is: `h' = h + strength·(h·v/‖v‖²)·(by - v)`, concept `v`
    becomes concept `by`.
    """

    op: Literal["replace"] = "replace"
    vector: Name
    by: Name | None = None
    scale: Finite = 1.0
    strength: Part = 1.0


class Rotate(Edit):
    """Turns the part of `h` in the plane of two directions to an angle, at the length it has.

    With `b1 = û`, `b2` the part of `towards` across it at length 1, `Ph` the part of h in their
    plane: `h' = h + strength·(‖Ph‖·(cos to·b1 + sin to·b2) - Ph)`, `to` in degrees. Under
    `adaptive` only where `h·b1 > 0`.
    """

    op: Literal["rotate"] = "rotate"
    vector: Name
    towards: Name
    to: Degrees
    adaptive: Flag = False
    strength: Part = 1.0


class Apply(Edit):
    """`apply ADAPTER at site`: the adapter's own update, scaled."""

    op: Literal["apply"] = "apply"
    adapter: Name
    scale: Finite = 1.0


class Capture(Node):
    """`capture at site tokens selector to sink`: copy rows of the stream out."""

    op: Literal["capture"] = "capture"
    at: SiteRef
    tokens: Selector = Everything()
    to: Name
    after: Flag = False
    rank: Annotated[Whole, Field(ge=1)] | None = None
    sample: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None
    keep: Literal["all", "marked"] = "all"


Statement: TypeAlias = Annotated[
    Steer | Cap | Ablate | Replace | Rotate | Apply | Capture, Field(discriminator="op")
]


def vector_names(statement: Statement) -> tuple[str, ...]:
    """Return the names of the vectors that a statement uses, its gate's included."""
    gate = getattr(statement, "gate", None)
    names = [getattr(statement, field, None) for field in ("vector", "by", "towards")]
    names.append(gate.vector if gate is not None else None)
    return tuple(name for name in names if name is not None)


# Declarations ---------------------------------------------------------------


class VectorDecl(Node):
    """`vector name = "path" key "tensor" row 17 rows hidden_states unit`.

    `row` takes one row of a tensor, `rows` says what a bank is numbered by.
    """

    name: Name
    path: str
    key: str | None = None
    row: Annotated[Whole, Field(ge=0)] | None = None
    rows: Numbering | None = None
    unit: Flag = False


class AdapterDecl(Node):
    """`adapter name = "folder"`."""

    name: Name
    path: str


class Program(Node):
    """A named list of statements and what happens where two of them meet.

    `kv` is whether the caches of requests that name the program are compressed, as the policy of
    the engine's documents says; None leaves it to that policy.
    """

    name: Name
    statements: tuple[Statement, ...] = ()
    conflict: Conflict = "sequential"
    kv: Flag | None = None


class SinkDecl(Node):
    """`sink name = kind("argument", option = value)`."""

    name: Name
    kind: Name
    args: tuple[Scalar, ...] = ()
    options: tuple[tuple[Name, Scalar], ...] = ()


class KvPolicy(Node):
    """`kv r1kv { budget = 512 … }`."""

    policy: Name
    options: tuple[tuple[Name, Scalar], ...] = ()


def _exactly_one(version: object) -> object:
    # `true` and 1.0 equal 1.
    if type(version) is not int:
        raise PydanticCustomError("literal_error", "a version is a whole number")
    return version


class Spec(Node):
    """One document, version 1.

    `conflict` is what happens where programs of one request meet; None stands for `sequential`.
    """

    interv: Annotated[Literal[1], BeforeValidator(_exactly_one)] = 1
    vectors: tuple[VectorDecl, ...] = ()
    adapters: tuple[AdapterDecl, ...] = ()
    programs: tuple[Program, ...] = ()
    sinks: tuple[SinkDecl, ...] = ()
    kv: KvPolicy | None = None
    conflict: Conflict | None = None
    default: Name | None = None

    @model_validator(mode="after")
    def _names_are_unique(self) -> Spec:
        for field in ("vectors", "adapters", "programs", "sinks"):
            times = Counter(item.name for item in getattr(self, field))
            twice = sorted(name for name, count in times.items() if count > 1)
            if twice:
                raise ValueError(f"{field} named twice: {', '.join(twice)}")
        return self


for _model in (
    Not,
    And,
    Or,
    Edit,
    Steer,
    Cap,
    Ablate,
    Replace,
    Rotate,
    Apply,
    Capture,
    Program,
    Spec,
):
    _model.model_rebuild()


# Requests -------------------------------------------------------------------


class RequestTerm(Node):
    """`NAME * multiplier`: a program, its strengths multiplied."""

    program: Name
    multiplier: Finite = 1.0


class RequestExpression(Node):
    """`calm*1.5 + formal`: what one request asks for; no term at all stands for `off`."""

    terms: tuple[RequestTerm, ...] = ()
