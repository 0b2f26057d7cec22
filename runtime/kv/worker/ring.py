"""The last queries of requests that are near a compaction, kept for it layer by layer.

A request holds a seat only while its tokens are near a compaction point; position p of it lies in
row `seat · W + p mod W`.

Where passes may be replays of captured graphs, rows are there for every request from the start,
and each token of such a pass has a row in a tensor that the graph reads: tokens that are not kept
go to a row that nobody reads.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import torch


class Ring:
    """Rows of queries, `[seats · W, N, D]` a layer; grows when more requests are near a point."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._rows: list[torch.Tensor] = []
        self._seats: dict[str, int] = {}
        self._free: list[int] = []
        self._count = 0
        self._source: torch.Tensor | None = None
        self._target: torch.Tensor | None = None
        self._rows_of: torch.Tensor | None = None  # [T] int64, of each token of a captured pass
        self._filled = False  # whether any of them is kept

    def open(self, layers: int) -> None:
        """Say how many layers there are, before anything is kept."""
        if self._rows_of is None:
            self._rows = [torch.empty(0)] * layers

    def fix(self, layers: int, seats: int, tokens: int, like: torch.Tensor) -> None:
        """Make all rows at once, for passes of at most `tokens` tokens that may be replayed.

        `like` is an empty tensor `[0, N, D]` of the type and on the device of queries.
        """
        shape = (seats * self.window + 1, *like.shape[1:])
        self._rows = [like.new_zeros(shape) for _ in range(layers)]
        self._rows_of = torch.full((tokens,), shape[0] - 1, device=like.device)

    def seat(self, request: str) -> int:
        """Return the seat of a request, given on first use."""
        if request not in self._seats:
            if not self._free:
                self._free.append(self._count)
                self._count += 1
                fixed = self._rows_of is not None
                assert not fixed or self._count * self.window < len(self._rows[0])
            self._seats[request] = self._free.pop()
        return self._seats[request]

    def leave(self, request: str) -> None:
        """Take a request's seat, if it has one."""
        seat = self._seats.pop(request, None)
        if seat is not None:
            self._free.append(seat)

    def keep_only(self, requests: Container[str]) -> None:
        """Take the seats of all other requests."""
        for request in [one for one in self._seats if one not in requests]:
            self.leave(request)

    def begin(self, source: torch.Tensor, target: torch.Tensor, tokens: int) -> None:
        """Say which of the coming pass's `tokens` are kept, and in which rows."""
        self._source, self._target = source, target
        if self._rows_of is not None and tokens <= len(self._rows_of):
            self._rows_of[source] = target
            self._filled = True

    def end(self) -> None:
        """Keep nothing of a forward pass that was not announced."""
        self._source = self._target = None
        if self._filled:
            assert self._rows_of is not None
            self._rows_of.fill_(len(self._rows[0]) - 1)
            self._filled = False

    def note(self, layer: int, queries: torch.Tensor) -> None:
        """Keep what was announced of a layer's queries `[T, N, D]`."""
        rows, captured = self._rows[layer], _is_captured(queries)
        if self._rows_of is not None and len(queries) <= len(self._rows_of):
            # What is captured now is replayed when something was announced.
            if self._filled or captured:
                rows.index_copy_(0, self._rows_of[: len(queries)], queries)
            return
        assert not captured, "a graph is captured for more tokens than was said"
        if self._source is None:
            return
        needed = self._count * self.window
        if len(rows) < needed:
            grown = queries.new_empty(max(needed, 2 * len(rows)), *queries.shape[1:])
            if len(rows):
                grown[: len(rows)] = rows
            self._rows[layer] = rows = grown
        rows[self._target] = queries[self._source]

    def queries(self, layers: Sequence[int], request: str, count: int) -> torch.Tensor:
        """Return the queries of a request's tokens before `count`, `[layers, W, N, D]`."""
        seat, rows = self._seats[request], [self._rows[layer] for layer in layers]
        recent = torch.arange(count - self.window, count, device=rows[0].device)
        place = recent % self.window + seat * self.window
        return torch.stack([one[place] for one in rows])


def _is_captured(queries: torch.Tensor) -> bool:
    """Say whether what is done with a tensor now becomes part of a graph."""
    return queries.is_cuda and torch.cuda.is_current_stream_capturing()
