"""How far a gate opens for what it reads: the part of its meaning that is not where it reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from interv.document.wording import number_text
from interv.passes.graph.column import Mode


@dataclass(frozen=True, slots=True)
class Opening:
    """The weight that a gate gives for a reading `p` of a stream `y`.

        x = p, of COSINE p/‖y‖, of ABSOLUTE its absolute value
        g = sigmoid(sharpness·(x - low)), of STEP 1 where low < x < high and 0 elsewhere

    Of a stream that is zero, COSINE makes 0. A bound itself is outside of a STEP, and so is what is
    not finite.
    """

    sharpness: float = 1.0
    low: float = 0.0
    high: float = math.inf
    mode: Mode = Mode.PLAIN

    def weight(self, p: Tensor, length: Tensor | None = None) -> Tensor:
        """Return the weights for readings `[…]`; of COSINE `length` `[…]` is ‖y‖."""
        if self.mode & Mode.COSINE:
            assert length is not None
            p = torch.where(length != 0, p / length, 0.0)
        x = p.abs() if self.mode & Mode.ABSOLUTE else p
        if self.mode & Mode.STEP:
            return ((self.low < x) & (x < self.high)).to(x.dtype)
        return torch.sigmoid(self.sharpness * (x - self.low))

    def formula(self, p: str = "p") -> str:
        """Print the weight as a formula of what is read."""
        x = f"{p}/‖y‖" if self.mode & Mode.COSINE else p
        x = f"|{x}|" if self.mode & Mode.ABSOLUTE else x
        if not self.mode & Mode.STEP:
            return f"sigmoid({number_text(self.sharpness)}·({x} − {number_text(self.low)}))"
        low = f"{number_text(self.low)} < " if self.low > -math.inf else ""
        high = f" < {number_text(self.high)}" if self.high < math.inf else ""
        return f"1 where {low}{x}{high}, else 0"

    def __str__(self) -> str:
        if self.mode == Mode.PLAIN:
            return f"{number_text(self.sharpness)}, {number_text(self.low)}"
        return self.formula("h·w")
