"""The captured rows of requests that run: kept a step at a time, put together when one ends.

Dims: `T` tokens of a step, `R` its requests, `n` captured rows, `P` sites of a group, `H` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from interv.codegen.slot import signed

# After so many steps the rows of a request are copied together: a step's rows stay in memory
# until the last of its requests lets go of them.
_STEPS = 64


@dataclass(frozen=True, slots=True, eq=False)
class StepTaken:
    """What one step took, of all requests together; all tensors on the host once `ready`.

    `hit` says for each token which captures want it, a bit each; `rows` are by group.
    """

    hit: torch.Tensor  # [T] int64
    position: torch.Tensor  # [T] int64
    token_id: torch.Tensor  # [T] int64
    rows: Mapping[int, torch.Tensor]  # [P, n, H], in the order of the tokens that a group takes
    ready: torch.cuda.Event | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of one request at the sites of one group, with the labels of each."""

    hit: torch.Tensor  # [n] int64
    position: torch.Tensor  # [n] int64
    token_id: torch.Tensor  # [n] int64
    rows: torch.Tensor  # [P, n, H]


@dataclass(slots=True, eq=False)
class RequestTaken:
    """The rows of one request so far: those put together already, and the steps since."""

    groups: Sequence[int]  # the captures of each group, a bit each
    own: int  # the captures that the request has
    kept: dict[int, Rows] = field(default_factory=dict)
    steps: list[tuple[StepTaken, int, int]] = field(default_factory=list)  # and its tokens

    def add(self, step: StepTaken, start: int, stop: int) -> None:
        """Add the rows that a step took of the request's tokens, `start` to before `stop`."""
        self.steps.append((step, start, stop))
        if len(self.steps) >= _STEPS:
            self.together()

    def together(self) -> Mapping[int, Rows]:
        """Put the rows of all steps together, and return them by group."""
        steps, self.steps = self.steps, []
        for step in {id(one[0]): one[0] for one in steps}.values():
            if step.ready is not None:
                step.ready.synchronize()
        for group, bits in enumerate(self.groups):
            if bits & self.own:
                before = [self.kept[group]] if group in self.kept else []
                parts = [_slice(*one, group, bits) for one in steps if group in one[0].rows]
                if before or parts:
                    self.kept[group] = _joined([*before, *parts])
        return self.kept


def _slice(step: StepTaken, start: int, stop: int, group: int, bits: int) -> Rows:
    """Return what a group took of some tokens of a step."""
    wanted = (step.hit & signed(bits)) != 0
    first = int(wanted[:start].sum())
    mine = wanted[start:stop].nonzero().flatten() + start
    rows = step.rows[group][:, first : first + len(mine)]
    return Rows(step.hit[mine], step.position[mine], step.token_id[mine], rows)


def _joined(parts: Sequence[Rows]) -> Rows:
    """Join rows, one a position, in order of position.

    A position comes again where a request is resumed after a preemption, or where a draft token
    was rejected: then the last one is the token that the request really has there.
    """
    position = torch.cat([one.position for one in parts])
    order = np.argsort(position.numpy(), kind="stable")
    ordered = position.numpy()[order]
    last = np.append(ordered[1:] != ordered[:-1], True) if len(ordered) else np.zeros(0, bool)
    kept = torch.from_numpy(order[last])
    return Rows(
        torch.cat([one.hit for one in parts])[kept],
        position[kept],
        torch.cat([one.token_id for one in parts])[kept],
        torch.cat([one.rows for one in parts], dim=1)[:, kept],
    )


def chosen(rows: Rows, bit: int, before: int) -> npt.NDArray[np.int64]:
    """Return which rows a capture takes of a request whose last fed position is before `before`."""
    mine = (rows.hit.numpy() >> bit) & 1 == 1
    return np.flatnonzero(mine & (rows.position.numpy() < before))
