"""The last queries of requests that are near a compaction, kept for it layer by layer.

A request holds a seat only while its tokens are near a compaction point; position p of it lies in
row `seat · W + p mod W`.
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

    def open(self, layers: int) -> None:
        """Say how many layers there are, before anything is kept."""
        self._rows = [torch.empty(0)] * layers

    def seat(self, request: str) -> int:
        """Return the seat of a request, given on first use."""
        if request not in self._seats:
            if not self._free:
                self._free.append(self._count)
                self._count += 1
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

    def begin(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Say which tokens of the coming forward pass are kept, and in which rows."""
        self._source, self._target = source, target

    def end(self) -> None:
        """Keep nothing of a forward pass that was not announced."""
        self._source = self._target = None

    def note(self, layer: int, queries: torch.Tensor) -> None:
        """Keep what was announced of a layer's queries `[T, N, D]`."""
        if self._source is None:
            return
        rows = self._rows[layer]
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
