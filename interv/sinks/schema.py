"""The labels of captured rows as files and manifests hold them, checked where they are read."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT = "interv captures 1"
SUFFIX = ".safetensors"
PART_SUFFIX = ".part"
MANIFEST = "manifest.jsonl"

Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**31)]
Text: TypeAlias = Annotated[str, Field(max_length=4096)]
# How rows are stored: as they were, as two factors, or as 8 bits with a scale a row.
Form: TypeAlias = Literal["whole", "low_rank", "int8", "fp8"]
# The types that a stream has, under the names of safetensors.
RowType: TypeAlias = Literal["F64", "F32", "F16", "BF16"]


class Labels(BaseModel):
    """A frozen piece of what a file says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PartLabels(Labels):
    """One place of a record: `rows` and `tokens` begin the names of its tensors.

    `dtype` and `shape` [n, H] are what reading gives, whatever the form. `error` is the relative
    Frobenius error of that form, `why` the reason where a wanted form was not taken.
    """

    site: Literal["pre_attn", "post_attn", "post_block"]
    layer: Count
    after: bool
    dtype: RowType
    shape: tuple[Count, Count]
    form: Form = "whole"
    rank: Count | None = None
    error: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    why: Text = ""
    rows: Text
    tokens: Text

    @model_validator(mode="after")
    def _rank_of_factors(self) -> PartLabels:
        if (self.form == "low_rank") != bool(self.rank):
            raise ValueError("a rank goes with the form low_rank, and is at least 1")
        return self

    @property
    def name(self) -> str:
        """Return the place in the language's notation."""
        return f"{self.site}[{self.layer}]{' after' if self.after else ''}"


class RecordLabels(Labels):
    """What one capture statement took of one request."""

    request: Text
    sample: Count
    tag: Text = ""
    program: Text
    statement: Text
    digest: Text
    model: Text
    prompt_tokens: Count
    tokens: Count
    ended: Literal["finished", "aborted"]
    rank: Count | None = None
    parts: tuple[PartLabels, ...]

    @model_validator(mode="after")
    def _places_once(self) -> RecordLabels:
        places = [(part.site, part.layer, part.after) for part in self.parts]
        if len(set(places)) != len(places):
            raise ValueError("a place is listed twice")
        return self

    @property
    def rows(self) -> int:
        """Return the number of rows of all parts."""
        return sum(part.shape[0] for part in self.parts)


class Contents(Labels):
    """The records of one file."""

    records: Annotated[tuple[RecordLabels, ...], Field(min_length=1)]


# Where one set of tokens is in a manifest: runs `[start, stop)` of positions, and their ids.
Runs: TypeAlias = tuple[tuple[Count, Count], ...]


class Tokens(Labels):
    """The positions of a part, as runs, and the ids of the tokens that were fed there."""

    positions: Runs
    token_ids: tuple[int, ...]


class Opened(Labels):
    """The first line of a session: a sink began to write here."""

    event: Literal["opened"] = "opened"
    session: Text
    format: Literal["interv captures 1"] = "interv captures 1"
    layout: Text
    when: Text


class Published(Labels):
    """A file that is complete, with all of its labels; `tokens` by the names parts give."""

    event: Literal["file"] = "file"
    session: Text
    file: Text
    bytes: Annotated[int, Field(ge=0)]
    records: tuple[RecordLabels, ...]
    tokens: dict[str, Tokens]


class Closed(Labels):
    """The last line of a session that ended cleanly, with the number of its files."""

    event: Literal["closed"] = "closed"
    session: Text
    files: Count
