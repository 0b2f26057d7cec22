"""The full linear maps of a site, in torch: a matmul each, before the site's columns.

    hidden += w·(h weightᵀ + bias − h)    with h = hidden (+ residual), w = alpha·gate where on

The kernels of the columns read what this leaves. To them the column of a map adds a direction of
zeros, so that a row which both change is counted once, by them.

Dims: `M` maps of the site, `K` columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interv.codegen.tables import SiteTensors, StepTensors
from interv.passes.graph.column import Kind
from interv.passes.graph.directions import Map
from interv.passes.placing.plan import GATES


@dataclass(frozen=True, slots=True, eq=False)
class LinearMaps:
    """The maps of one site, ready to be called every step; safe under CUDA graph capture.

    On a GPU every map is computed for every token of a step, for which of them take it only the
    device knows. On a CPU it is computed for the tokens that take it, and for none at no cost.
    """

    weights: tuple[Tensor, ...]  # M of [H, H] float32
    biases: tuple[Tensor, ...]  # M of [H] float32
    site: SiteTensors
    step: StepTensors

    def __call__(self, hidden: Tensor, residual: Tensor | None) -> None:
        """Apply the maps to `hidden` [T, H] in place; the stream is `hidden + residual`.

        Sums are in float32, or in float64 for a float64 stream, and rounded once. A token that
        takes no map keeps its bits.
        """
        tokens = hidden.shape[0]
        if hidden.device.type != "cpu":
            hidden.copy_(self._mapped(hidden, residual, self.shares(tokens)))
            return
        if not (self.step.slot[:tokens] >= 0).any():
            return
        share = self.shares(tokens)
        rows = (share != 0).any(dim=1).nonzero().flatten()
        if rows.numel():
            other = None if residual is None else residual[rows]
            hidden[rows] = self._mapped(hidden[rows], other, share[rows])

    def shares(self, tokens: int) -> Tensor:
        """Return how much of each map each token takes, [T, M] float32."""
        slot, mask = self.step.slot[:tokens], self.step.mask[:tokens, None]
        s = slot.clamp(min=0)
        # One gather of whole columns, then views: what is launched here costs more than it moves.
        own = replace(self.site, columns=self.site.columns[s])
        kind, place, gate, alpha, bit, unless = (
            own.field(name)  # [T, K]
            for name in ("kind", "store", "gate", "alpha", "bit", "unless")
        )
        # A gate of the map's own site is a decay, whose alpha is the logarithm of its rate.
        rate = alpha.gather(1, gate.clamp(0, self.site.width - 1).long())
        fading = torch.exp2(rate * self.step.index[:tokens, None])
        inside = torch.arange(self.site.width, device=slot.device) < self.site.count[s, None]
        on = (slot >= 0)[:, None] & inside & (kind == Kind.ADD) & (place >= 0)
        on &= ((mask & bit) != 0) & ((mask & unless) == 0)
        # Any other is always one of an earlier site. What lies beyond a slot's count may be
        # anything, so that places are brought into bounds before they are looked at.
        most = self.step.gate.shape[1] - 1
        kept = self.step.gate[:tokens].gather(1, (gate - GATES).clamp(0, most).long())
        weight = torch.where(gate < GATES, fading, kept)
        share = torch.where(on, torch.where(gate < 0, alpha, alpha * weight), 0.0)
        numbers = torch.arange(len(self.weights), device=slot.device)
        mine = place[:, :, None] == numbers  # [T, K, M]
        return torch.where(mine, share[:, :, None], 0.0).sum(dim=1)

    def _mapped(self, hidden: Tensor, residual: Tensor | None, share: Tensor) -> Tensor:
        """Return `hidden` with the maps applied, as [T, M] says, in its dtype."""
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        own = hidden.to(wide)
        h = own if residual is None else own + residual.to(wide)
        out = own
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            w = share[:, number, None].to(wide)
            change = torch.addmm(bias.to(wide), h, weight.to(wide).T) - h
            # Chosen, not multiplied by 0: a matmul of other tokens' rows may overflow.
            out = torch.where(w != 0, out + w * change, out)
        taken = (share != 0).any(dim=1, keepdim=True)
        return torch.where(taken, out.to(hidden.dtype), hidden)


def linear_maps(
    maps: Sequence[Map],
    site: SiteTensors,
    step: StepTensors,
    held: dict[str, tuple[Tensor, Tensor]],
) -> LinearMaps:
    """Return the maps of a site on its device.

    `held` are weights and biases that are there already, by digest, and gains those that are new:
    a map that several sites have is kept once.
    """
    for one in maps:
        if one.digest not in held:
            parts = (torch.from_numpy(part.copy()) for part in (one.weight, one.bias))
            weight, bias = (part.to(site.bank.device) for part in parts)
            held[one.digest] = (weight, bias)
    pairs = [held[one.digest] for one in maps]
    weights, biases = (tuple(part) for part in zip(*pairs, strict=True))
    return LinearMaps(weights, biases, site, step)
