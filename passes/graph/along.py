"""Selectors that follow markers, over a batch: the tensor form of `interv.document.markers`.

Everything is found at once: a marker ends where its ids stand in a row, and whether something is
open follows from the last marker that opened or closed it, a running maximum of indices.

Dims: `T` tokens of the batch, those of a request in a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from interv.document.markers import Following, Id, Opening, Sequences, longest, opening_of
from interv.document.spec import After, Before

NO_ID = -1  # before the first token of a request


class Along(ABC):
    """The tokens of a batch and what came before them."""

    def __init__(self, ids: Tensor, first: Tensor) -> None:
        """`ids` `[T]` int64; `first` `[T]` int64, where the request of each token begins."""
        self._ids, self._first = ids, first
        self._index = torch.arange(len(ids), device=ids.device)
        self._backs: dict[int, Tensor] = {0: ids}
        self._ends: dict[Sequences, Tensor] = {}
        self._open: dict[Opening, Tensor] = {}

    @abstractmethod
    def before(self, back: int) -> Tensor:
        """Return the id `back` tokens before each, `[T]`; asked where that is before `first`."""

    @abstractmethod
    def was_open(self, opening: Opening) -> Tensor:
        """Say whether something was open before the `first` token of each request, `[T]` bool."""

    def holds(self, leaf: Following) -> Tensor:
        """Return the tokens that a selector holds for, bool `[T]`."""
        opening = opening_of(leaf)
        is_open = self.open(opening)
        if isinstance(leaf, Before):
            return ~is_open
        inside = self._index > self._first
        was = torch.where(inside, is_open.roll(1), self.was_open(opening))
        return was if isinstance(leaf, After) else was & ~self._ended(opening.closes)

    def open(self, opening: Opening) -> Tensor:
        """Say whether something is open after each token, bool `[T]`."""
        if opening not in self._open:
            closes = self._ended(opening.closes)
            opens = self._ended(opening.opens) & ~closes
            changed = torch.where(opens | closes, self._index, -1)
            last = changed.cummax(0).values
            known = opens[last.clamp(min=0)]
            self._open[opening] = torch.where(last >= self._first, known, self.was_open(opening))
        return self._open[opening]

    def _ended(self, markers: Sequences) -> Tensor:
        """Return the tokens at which one of some markers ends, bool `[T]`."""
        if markers not in self._ends:
            found = torch.zeros_like(self._ids, dtype=torch.bool)
            for table in _tables(markers, self._ids.device):
                last = [self._back(back) for back in reversed(range(table.shape[1]))]
                if len(last) == 1:
                    found |= torch.isin(self._ids, table[:, 0])
                else:
                    found |= (torch.stack(last, 1)[:, None] == table).all(2).any(1)
            self._ends[markers] = found
        return self._ends[markers]

    def _back(self, back: int) -> Tensor:
        if back not in self._backs:
            near = self._index - back
            own = self._ids[near.clamp(min=0)]
            self._backs[back] = torch.where(near >= self._first, own, self.before(back))
        return self._backs[back]


@lru_cache(maxsize=256)
def _tables(markers: Sequences, device: torch.device) -> tuple[Tensor, ...]:
    """Return markers on a device, those of one length together, each `[N, length]` int64."""
    by_length: dict[int, list[tuple[Id, ...]]] = {}
    for one in markers:
        by_length.setdefault(len(one), []).append(one)
    return tuple(torch.tensor(one, device=device) for one in by_length.values())


class Whole(Along):
    """Requests that begin in the batch."""

    def before(self, back: int) -> Tensor:
        """Return that there is none, `[T]`."""
        return torch.full_like(self._ids, NO_ID)

    def was_open(self, opening: Opening) -> Tensor:
        """Return that nothing was open, bool `[T]`."""
        return torch.zeros_like(self._ids, dtype=torch.bool)


class _Behind(Along):
    """Tokens of one request, behind others of it that are known on the host."""

    def __init__(self, ids: Tensor, tail: Sequence[int], is_open: Collection[Opening]) -> None:
        super().__init__(ids, torch.zeros_like(ids))
        self._tail, self._was = tail, is_open

    def before(self, back: int) -> Tensor:
        # Right for the first `back` tokens, and the others are not asked for.
        padded = [NO_ID] * back + list(self._tail)
        known = torch.tensor(padded[-back:], dtype=torch.int64)[: len(self._ids)]
        return torch.cat([known, self._ids[: len(self._ids) - len(known)]])

    def was_open(self, opening: Opening) -> Tensor:
        return torch.full_like(self._ids, opening in self._was, dtype=torch.bool)


class Walk:
    """What some selectors have seen of one request, from its front on."""

    def __init__(self, leaves: Sequence[Following]) -> None:
        self._openings = tuple(dict.fromkeys(map(opening_of, leaves)))
        self._reach = longest(leaves)
        self._at, self._open = 0, frozenset[Opening]()

    def along(self, ids: Sequence[int], start: int) -> Along:
        """Return the request's tokens from `start` on; `ids` are all that it has.

        Looks at the tokens that are new since the last call, all of them where it goes back.
        """
        self._go_to(ids, start)
        return self._behind(ids, start, len(ids))

    def open(self, ids: Sequence[int], start: int) -> frozenset[Opening]:
        """Return what is open before the token at `start`."""
        self._go_to(ids, start)
        return self._open

    def _go_to(self, ids: Sequence[int], start: int) -> None:
        if start < self._at:
            self._at, self._open = 0, frozenset()
        if start > self._at:
            passed = self._behind(ids, self._at, start)
            self._open = frozenset(one for one in self._openings if passed.open(one)[-1])
            self._at = start

    def _behind(self, ids: Sequence[int], start: int, end: int) -> Along:
        tail = ids[max(start - self._reach, 0) : start]
        return _Behind(torch.tensor(ids[start:end], dtype=torch.int64), list(tail), self._open)
