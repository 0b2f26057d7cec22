"""The formulas of R1KV over a batch of layers, in float32.

Source: R-KV, "Redundancy-aware KV Cache Compression for Reasoning Models", and its reference.

Dims: `B` layers times requests, `N` query heads, `G` kv heads, `S` tokens held, `W` last queries,
`D` head size. Keys are as they lie in the cache, already rotated; query head n belongs to kv head
n // (N / G).
"""

from __future__ import annotations

import torch

# The most similarities that are held at once: 64 MiB of float32.
TILE = 16 * 1024 * 1024
# How many columns the search for repetitions looks at first; twice as many each further time.
_COLUMNS = 64


def importance(
    keys: torch.Tensor, queries: torch.Tensor, scale: float, kernel: int
) -> torch.Tensor:
    """Return how much the last queries attend to each token but the last W, `[B, G, S - W]`.

    `keys` is `[B, G, S, D]`, `queries` `[B, W, N, D]`, `scale` what attention multiplies logits
    with, usually 1/√D. The largest logit of a group's heads counts; a token is as important as
    the most important one among `kernel` around it.
    """
    batch, groups, length, size = keys.shape
    window, heads = queries.shape[1:3]
    by_group = queries.view(batch, window, groups, heads // groups, size).permute(0, 2, 3, 1, 4)
    flat = by_group.reshape(batch, groups, -1, size).float()
    past = keys[:, :, : length - window].float()
    logits = (flat @ past.transpose(-1, -2)).mul_(scale)
    logits = logits.view(batch, groups, -1, window, length - window).amax(2)
    mean = logits.softmax(-1).mean(2)
    return torch.nn.functional.max_pool1d(mean, kernel, stride=1, padding=kernel // 2)


def redundancy(keys: torch.Tensor, threshold: float, tile: int = TILE) -> torch.Tensor:
    """Return how much each token repeats others, `[B, G, S]`; a softmax over all S tokens.

    The mean over all i of cos(k_i, k_j), without i = j, and without each token's last repetition:
    of row i the last j with a cosine above `threshold`, column 0 where there is none. At most
    `tile` similarities are held at once.

    The sum of a column of cosines is one product with the sum of all directions, so of the S × S
    similarities only those are computed that the search for last repetitions looks at.
    """
    batch, groups, length, _ = keys.shape
    unit = keys.float().flatten(0, 1)
    unit = unit / (unit.norm(dim=-1, keepdim=True) + 1e-8)
    exact = unit.double()
    total = (exact @ exact.sum(1)[..., None])[..., 0] - exact.square().sum(-1)
    last, cosine = last_repetitions(unit, threshold, tile)
    total.scatter_add_(1, last, -cosine.double())
    mean: torch.Tensor = (total / length).float().view(batch, groups, length)
    return mean.softmax(-1)


def last_repetitions(
    unit: torch.Tensor, threshold: float, tile: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return of each direction the last other one that is like it, and their cosine.

    `unit` is `[B·G, S, D]`, both results are `[B·G, S]`; column 0 where none is. Columns are
    searched from the last one down, more at a time as fewer rows are left: most have a hit soon.
    """
    if unit.is_cuda:
        from interv.kv import triton_repetitions

        return triton_repetitions.last_repetitions(unit, threshold)
    heads, length, size = unit.shape
    last = torch.zeros(heads, length, dtype=torch.int64, device=unit.device)
    cosine = (unit @ unit[:, 0, :, None])[..., 0]
    cosine[:, 0] = 0.0
    missing = torch.ones(heads, length, dtype=torch.bool, device=unit.device)
    stop, most = length, heads * length * _COLUMNS
    while stop and (rows := int(missing.sum(-1).max())):
        start = max(0, stop - max(1, min(tile, most) // (heads * rows)))
        row = missing.byte().sort(dim=-1, descending=True, stable=True).indices[:, :rows]
        own = unit.gather(1, row[..., None].expand(-1, -1, size))
        found, at, value = _last_above(own @ unit[:, start:stop].mT, row, start, threshold)
        found &= missing.gather(1, row)
        last.scatter_(1, row, torch.where(found, at, last.gather(1, row)))
        cosine.scatter_(1, row, torch.where(found, value, cosine.gather(1, row)))
        missing.scatter_(1, row, missing.gather(1, row) & ~found)
        stop, most = start, 2 * most
    return last, cosine


def _last_above(
    similar: torch.Tensor, row: torch.Tensor, start: int, threshold: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return whether a row is above the threshold anywhere, where last, and its value there.

    `similar` `[H, rows, columns]` are the cosines of directions `row` with those from `start` on;
    each of them is 0 to itself. Each result is `[H, rows]`.
    """
    columns = similar.shape[-1]
    inside = ((row >= start) & (row < start + columns))[..., None]
    own = (row - start).clamp(0, columns - 1)[..., None]
    similar.scatter_(-1, own, torch.where(inside, 0.0, similar.gather(-1, own)))
    place = torch.arange(columns, device=similar.device, dtype=torch.float32)
    at = torch.where(similar > threshold, place, -1.0).amax(-1).long()
    value = similar.gather(-1, at.clamp(0)[..., None])[..., 0]
    return at >= 0, at + start, value


def keep_best(scores: torch.Tensor, budget: int, window: int) -> torch.Tensor:
    """Return which tokens stay, `[B, G, budget]`, in temporal order.

    `scores` is `[B, G, S - W]`: the best of them and the last W. Of equal ones the earlier stays.
    """
    older = scores.shape[-1]
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    best = order[..., : budget - window].sort(-1).values
    recent = torch.arange(older, older + window, device=scores.device)
    return torch.cat([best, recent.expand(*best.shape[:-1], window)], dim=-1)
