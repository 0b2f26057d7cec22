"""How the CPU keeps keys and values in a block: read off by writing element numbers.

The order depends on the instruction set, the type and the head size, and vLLM's own op that
writes the cache is the only place that knows it. So each element of one block is written with its
number, and where the numbers lie in memory is the order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from interv.errors import IntervError

# write(key [T, G, D], value [T, G, D], cache [blocks, G, block, 2 D], slots [T])
Write = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]
# Whole numbers below this are exact in every type that a cache has.
_BASE = 128


@dataclass(frozen=True, slots=True)
class Layout:
    """Where element i of a block `[block, D]` lies in memory, for keys and for values."""

    block_size: int
    head_size: int
    keys: torch.Tensor  # [block · D] int64
    values: torch.Tensor

    def read(self, cache: torch.Tensor, blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of some blocks, each `[G, blocks · block, D]`.

        `cache` is `[blocks, G, block, 2 D]`, `blocks` numbers of blocks, int64.
        """
        found = cache.index_select(0, blocks)
        count, groups = found.shape[:2]
        both = found.view(count, groups, 2, self.block_size * self.head_size)
        shape = (count, groups, self.block_size, self.head_size)
        keys, values = (
            both[:, :, i].index_select(-1, order).view(shape).transpose(0, 1).flatten(1, 2)
            for i, order in enumerate((self.keys, self.values))
        )
        return keys, values


def calibrate(cache: torch.Tensor, write: Write) -> Layout:
    """Return the layout of a cache that `write` fills.

    Raises IntervError E575 where elements are not simply moved.
    """
    _, groups, block_size, twice = cache.shape
    head_size = twice // 2
    count = block_size * head_size
    number = torch.arange(count)
    found = torch.zeros(2, count, dtype=torch.int64)
    slots = torch.arange(block_size)
    place = 1
    while place < count:
        digits = (number // place % _BASE).view(block_size, 1, head_size)
        rows = digits.expand(-1, groups, -1).to(cache.dtype).contiguous()
        block = torch.zeros(1, groups, block_size, twice, dtype=cache.dtype)
        write(rows, rows, block, slots)
        found += block[0, 0].reshape(2, count).long() * place
        place *= _BASE
    for one in found:
        if not torch.equal(one.sort().values, number):
            raise IntervError(
                "E575",
                "this CPU keeps keys and values in an order that interv cannot read",
                notes=[f"type {cache.dtype}, {block_size} tokens a block, head size {head_size}"],
            )
    return Layout(block_size, head_size, found[0].argsort(), found[1].argsort())
