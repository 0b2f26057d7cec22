"""What a capture took of one request: rows of the stream, each with its labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The rows of one site: `rows` [n, H], `position` and `token_id` [n], all on the host.

    `position` is absolute, ascending, each once; `token_id` is the token that was fed there.
    `rows` has the dtype of the engine's stream.
    """

    site: str
    layer: int
    after: bool  # as the site's edits left the stream, not as they found it
    rows: torch.Tensor
    position: torch.Tensor
    token_id: torch.Tensor

    @property
    def name(self) -> str:
        """Return the place in the language's notation: `post_block[12]`, `… after` the edits."""
        return f"{self.site}[{self.layer}]{' after' if self.after else ''}"

    @property
    def bytes(self) -> int:
        """Return the bytes of rows, positions and token ids."""
        return sum(one.nbytes for one in (self.rows, self.position, self.token_id))


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """What one capture statement took of one request; each place is in `parts` at most once.

    Its tensors belong to whom it is given: nothing writes to them any more. `statement` is one of
    its program's only, and `program` of the engine's.
    """

    request: str  # the client's id of the request
    sample: int  # which of its n samples
    tag: str  # "" or what the request said
    program: str
    statement: str  # "calm.interv:12"
    digest: str  # the program's content digest
    model: str
    prompt_tokens: int
    tokens: int  # prompt and generated; rows exist for positions < tokens - 1
    ended: Literal["finished", "aborted"]
    rank: int | None  # of the statement
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        """Return the bytes of all rows, positions and token ids."""
        return sum(part.bytes for part in self.parts)
