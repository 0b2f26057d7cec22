"""Gates and kept norms in plain torch, and where rounding would decide what they do."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import assume, strategies as st
from torch import Tensor

from interv.document.spec import Gate, SiteRef

# Readings that are so near to a bound, and streams of which so little is left, that rounding may
# decide, decide nothing here: such examples are not taken.
TIE, LITTLE, NOTHING = 1e-5, 0.2, 1e-9


def opened(gate: Gate, h: Tensor, w: Tensor) -> float:
    """Return the weight of a gate that reads `h` with the probe `w`, both [H]."""
    x, slack = torch.dot(h, w), TIE * float(h.norm() * w.norm())
    if gate.cosine:
        assume(h.norm() == 0 or h.norm() > 1e-6)
        x, slack = x / (h.norm() * w.norm()) if h.norm() > 0 else 0 * x, TIE
    x = x.abs() if gate.absolute else x
    if gate.above is None and gate.below is None:
        return float(torch.sigmoid(gate.sharpness * (x - gate.threshold)))
    low = -np.inf if gate.above is None else gate.above
    high = np.inf if gate.below is None else gate.below
    assume(min(abs(float(x) - low), abs(float(x) - high)) > slack)
    return float(low < x < high)


def kept(h: Tensor, change: Tensor) -> Tensor:
    """Return the change after which the stream has the length that it had before."""
    moved = h + change
    left = float(moved.norm() / h.norm()) if h.norm() > 0 else 1.0
    if left <= NOTHING or moved.norm() == 0:
        return change
    assume(left > LITTLE)
    return moved * (h.norm() / moved.norm()) - h


def openings(
    bounds: tuple[float | None, float | None], vectors: st.SearchStrategy[str]
) -> st.SearchStrategy[Gate]:
    """Make gates with such bounds, curves where they are open."""
    return st.builds(
        Gate,
        vector=vectors,
        site=st.sampled_from([None, None, SiteRef(name="post_block", layers=(0,))]),
        absolute=st.booleans(),
        cosine=st.booleans(),
        sharpness=st.just(1.0) if bounds != (None, None) else st.sampled_from([4.0, -2.0]),
        above=st.just(bounds[0]),
        below=st.just(bounds[1]),
    )
