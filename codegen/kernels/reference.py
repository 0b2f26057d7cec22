"""The update of one site on slots and masks, as plain torch: what every kernel must equal.

Accumulates in float32, or in float64 for a float64 stream. The formula is the canonical
update: K dots on the stream as it came, what each column would have read after the earlier ones
from the Gram, one write.
"""

from __future__ import annotations

import torch

from interv.codegen.tables import SiteTensors


def update(
    hidden: torch.Tensor,  # [T, H], written
    residual: torch.Tensor | None,  # [T, H]
    slot: torch.Tensor,  # [T] int32, -1: no edit
    mask: torch.Tensor,  # [T] int64
    site: SiteTensors,
    edited: torch.Tensor | None = None,  # [S] int64, counts the rows written, by slot
) -> None:
    """Add every token's edits to `hidden` in place; the stream is `hidden + residual`.

    A token whose coefficients are all zero is not written, so that its bits stay as they were.
    """
    live = (slot >= 0).nonzero().flatten()
    if live.numel() == 0:
        return
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    s = slot[live].long()
    own = hidden[live].to(wide)
    h = own if residual is None else own + residual[live].to(wide)
    change, touched = _change(h, s, mask[live], site, wide)
    hidden[live[touched]] = (own + change)[touched].to(hidden.dtype)
    if edited is not None:
        edited += torch.bincount(s[touched], minlength=len(edited))


def _change(
    h: torch.Tensor, s: torch.Tensor, mask: torch.Tensor, site: SiteTensors, wide: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each token gains [T, H], and which tokens gain anything [T]."""
    bank, gram = site.bank.to(wide), site.gram.to(wide)
    c = torch.zeros(len(s), site.width, dtype=wide, device=h.device)  # [T, K]
    change = torch.zeros_like(h)
    for j in range(site.width):
        a, b = site.a[s, j].long(), site.b[s, j].long()
        on = (j < site.count[s]) & ((mask & site.bit[s, j]) != 0)
        p = torch.where(a >= 0, (h * bank[a.clamp(min=0)]).sum(dim=1), 0)
        for i in range(j):
            seen = (a >= 0) & ((site.sees[s, j] >> i) & 1).bool()
            earlier = gram[a.clamp(min=0), site.b[s, i].long()] * c[:, i]
            p = p + torch.where(seen, earlier, 0)
        alpha, beta, strength, low, high = site.coef[s, j].to(wide).unbind(dim=1)
        phi = alpha + beta * p + strength * (torch.clamp(p, low, high) - p)
        c[:, j] = torch.where(on, phi, 0)
        change = change + c[:, j, None] * bank[b]
    return change, (c != 0).any(dim=1)
