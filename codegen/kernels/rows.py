"""Copy captured rows out of the stream: what it means, its CPU form, and which form a device runs.

Dims: `T` tokens, `H` hidden size, `M` the most tokens of a step, `n` captured rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

# One site's copy: hidden [T, H], residual [T, H] or None.
CopyRows: TypeAlias = Callable[[torch.Tensor, torch.Tensor | None], None]


@dataclass(eq=False, slots=True)
class StepRows:
    """Which tokens of this step are captured, alike for all sites of a group.

    `target[t]` is the row that token t is copied to, -1 for none; rows keep the tokens' order.
    `chosen` are those tokens, known on a CPU, where rows are counted before they are copied.
    """

    target: torch.Tensor  # [M] int32
    chosen: torch.Tensor | None = None  # [n] int64

    def clear(self) -> None:
        """Capture no token."""
        self.target.fill_(-1)
        self.chosen = None


def copy_rows(
    hidden: torch.Tensor, residual: torch.Tensor | None, target: torch.Tensor, stage: torch.Tensor
) -> None:
    """Write `hidden + residual` of each token to row `target[t]` of `stage` `[M, H]`, if any.

    The sum is taken in fp32 and rounded to the dtype of `stage` once.
    """
    tokens = hidden.shape[0]
    chosen = (target[:tokens] >= 0).nonzero().flatten()
    own = hidden[chosen].float()
    if residual is not None:
        own = own + residual[chosen].float()
    stage[target[:tokens][chosen].long()] = own.to(stage.dtype)


def rows_form(name: str, step: StepRows, stage: torch.Tensor) -> CopyRows:
    """Return the copy of one site, in the form that goes with the update's form of that name."""
    if name == "triton":
        from interv.codegen.kernels.triton_rows import TritonRows

        return TritonRows(step.target, stage)

    def copy(hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        chosen = step.chosen
        if chosen is None or not len(chosen):
            return
        streams = [hidden] if residual is None else [hidden, residual]
        if len(chosen) < len(hidden):
            streams = [one.index_select(0, chosen) for one in streams]
        into = stage[: len(chosen)]
        # A sum of narrow numbers is taken in fp32 too, and rounded once.
        into.copy_(streams[0]) if residual is None else torch.add(*streams, out=into)

    def plain(hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        copy_rows(hidden, residual, step.target, stage)

    return copy if stage.device.type == "cpu" else plain
