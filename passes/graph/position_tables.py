"""Lists of positions as tables on a device: one look decides, whatever the length of the list."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor

from interv.document.positions import Runs, runs_of
from interv.document.spec import Positions

# So many lists keep their tables, of at most 64 KiB each.
_KEPT = 256
# The first and the last positions of runs, each `[n]` int64.
_Table: TypeAlias = tuple[Tensor, Tensor]


def listed(position: Tensor, prompt_length: Tensor, selector: Positions) -> Tensor:
    """Return which tokens a list names, bool `[T]`.

    `position` `[T]` is absolute, `prompt_length` `[T]` that of the original prompt; int64.
    """
    in_prompt = position < prompt_length
    runs, start, end = _tables(selector, position.device)
    from_end = position - prompt_length
    if selector.phase == "generated":
        return ~in_prompt & _within(start, from_end)
    found = _within(start, position) | _within(end, from_end)
    for first, last in runs.between:
        after = (position if first >= 0 else from_end) >= first
        found |= after & ((position if last >= 0 else from_end) <= last)
    return in_prompt & found


@lru_cache(maxsize=_KEPT)
def _tables(selector: Positions, device: torch.device) -> tuple[Runs, _Table, _Table]:
    runs = runs_of(selector)
    return runs, _table(runs.start, device), _table(runs.end, device)


def _table(runs: tuple[tuple[int, int], ...], device: torch.device) -> _Table:
    made = torch.tensor(runs, dtype=torch.int64).reshape(-1, 2).T.contiguous().to(device)
    return made[0], made[1]


def _within(table: _Table, index: Tensor) -> Tensor:
    first, last = table
    if not len(first):
        return torch.zeros_like(index, dtype=torch.bool)
    run = torch.searchsorted(first, index, right=True) - 1
    return (run >= 0) & (index <= last[run.clamp(min=0)])
