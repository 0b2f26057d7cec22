"""What every piece of a document is made of: frozen models, and numbers that are numbers."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

SiteName: TypeAlias = Literal["pre_attn", "post_attn", "post_block"]
Conflict: TypeAlias = Literal["error", "priority", "sequential", "sum", "joint"]
Numbering: TypeAlias = Literal["blocks", "hidden_states"]
Phase: TypeAlias = Literal["prompt", "generated"]
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
# Numbers are numbers and flags are flags: `true` is not 1, and neither is "1".
Whole: TypeAlias = Annotated[int, Field(strict=True)]
Finite: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Part: TypeAlias = Annotated[float, Field(strict=True, ge=0, le=1)]
# What a factor is multiplied by from one token to the next.
Rate: TypeAlias = Annotated[float, Field(strict=True, gt=0, le=1)]
More: TypeAlias = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Degrees: TypeAlias = Annotated[float, Field(strict=True, ge=-360, le=360)]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
Scalar: TypeAlias = bool | int | float | str


class Node(BaseModel):
    """A frozen piece of a document; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
