"""Where a fused add-RMSNorm rounds."""

from __future__ import annotations

from enum import IntEnum


class Rounding(IntEnum):
    """Where a fused add-RMSNorm rounds to the stream's dtype, besides its two results.

    With s the float32 sum of hidden and residual, and n(x) = x / sqrt(mean(x²) + epsilon):

        TORCH     weight * round(n(s)): what the op's own torch form says
        COMPILED  weight * n(s): what Inductor makes of that form, which keeps float32 inside
        KERNEL    weight * round(n(round(s))): what vLLM's C++ kernel does
    """

    TORCH = 0
    COMPILED = 1
    KERNEL = 2
