"""The three points of a block at which the residual stream is read and written."""

from __future__ import annotations

from dataclasses import dataclass

PRE_ATTN = "pre_attn"
POST_ATTN = "post_attn"
POST_BLOCK = "post_block"

# In the order in which a block reaches them.
SITES = (PRE_ATTN, POST_ATTN, POST_BLOCK)

MEANING = {
    PRE_ATTN: "the stream entering block L; first seen by its attention",
    POST_ATTN: "stream + attention output; first seen by the MLP of block L",
    POST_BLOCK: "the stream leaving block L; first seen by block L+1 or the final norm",
}


@dataclass(frozen=True, slots=True)
class Site:
    """One site of one block; layers are 0-based."""

    name: str
    layer: int

    def __str__(self) -> str:
        return f"{self.name}[{self.layer}]"

    @property
    def order(self) -> tuple[int, int]:
        """Return the sort key of the order in which a forward pass reaches sites."""
        return (self.layer, SITES.index(self.name))

    def reaches_cache(self, num_layers: int) -> bool:
        """Say whether cached keys and values depend on an edit here: a later attention reads it."""
        return self.name == PRE_ATTN or self.layer < num_layers - 1
