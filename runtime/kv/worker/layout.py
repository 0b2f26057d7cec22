"""How keys and values lie in a block of the cache: read off by writing element numbers.

The order depends on the backend, and on a CPU on the instruction set, the type and the head size;
vLLM's own op that writes the cache is the only place that knows it. So each element of one block is
written with its number, and where the numbers lie is the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from interv.errors import IntervError

# write(key [T, G, D], value [T, G, D], cache [blocks, G, block, 2 D], slots [T])
Write = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]
# Whole numbers below this are exact in every type that a cache has.
_BASE = 128


@dataclass(frozen=True, slots=True)
class Layout:
    """Where element i of a block `[block, D]` lies within a head's part, for keys and values."""

    block_size: int
    head_size: int
    keys: torch.Tensor  # [block · D] int64, into [block · 2 D], on the device of the cache
    values: torch.Tensor

    def read(self, cache: torch.Tensor, blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of some blocks, each `[G, blocks · block, D]`.

        `cache` is `[blocks, G, block, 2 D]`, `blocks` numbers of blocks, int64.
        """
        found = cache.index_select(0, blocks).flatten(2)
        shape = (*found.shape[:2], self.block_size, self.head_size)
        keys, values = (
            found.index_select(-1, order).view(shape).transpose(0, 1).flatten(1, 2)
            for order in (self.keys, self.values)
        )
        return keys, values


def calibrate(cache: torch.Tensor, write: Write) -> Layout:
    """Return the layout of a cache that `write` fills.

    Raises IntervError E575 where elements are not simply moved.
    """
    _, groups, block_size, twice = cache.shape
    count, device = block_size * twice, cache.device
    # Keys are numbered from 0 and values behind them.
    number = torch.arange(count, device=device).view(2, block_size, 1, twice // 2)
    found = torch.zeros(count, dtype=torch.int64, device=device)
    slots = torch.arange(block_size, device=device)
    place = 1
    while place < count:
        digits = (number // place % _BASE).expand(-1, -1, groups, -1)
        key, value = digits.to(cache.dtype).contiguous()
        block = torch.zeros(1, groups, block_size, twice, dtype=cache.dtype, device=device)
        write(key, value, block, slots)
        found += block[0, 0].flatten().long() * place
        place *= _BASE
    if not torch.equal(found.sort().values, number.flatten()):
        raise IntervError(
            "E575",
            "keys and values lie in the cache in an order that interv cannot read",
            notes=[f"type {cache.dtype}, {block_size} tokens a block, head size {twice // 2}"],
        )
    return Layout(block_size, twice // 2, *found.argsort().view(2, -1))


def fill(cache: torch.Tensor, num_blocks: int, ids: Sequence[int]) -> None:
    """Write zeros to the blocks `ids` of one cache `[num_blocks · r, …]`, r kernel blocks each."""
    ratio = cache.shape[0] // num_blocks
    rows = torch.tensor(ids)[:, None] * ratio + torch.arange(ratio)
    # Types of one byte know few operations.
    plain = cache.view(torch.uint8) if cache.element_size() == 1 else cache
    plain.index_fill_(0, rows.flatten().to(cache.device), 0)
