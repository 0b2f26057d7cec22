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
    """
    batch, groups, length, _ = keys.shape
    unit = keys.float()
    unit = unit / (unit.norm(dim=-1, keepdim=True) + 1e-8)
    total = unit.new_zeros(batch, groups, length)
    place = torch.arange(length, device=keys.device, dtype=torch.float32)
    step = max(1, tile // (batch * groups * length))
    for start in range(0, length, step):
        rows = unit[:, :, start : start + step]
        cosine = rows @ unit.transpose(-1, -2)  # [B, G, rows, S]
        cosine.diagonal(start, -2, -1).zero_()
        last = torch.where(cosine > threshold, place, 0.0).amax(-1, keepdim=True).long()
        cosine.scatter_(-1, last, 0.0)
        total += cosine.sum(-2)
    mean: torch.Tensor = total / length
    return mean.softmax(-1)


def keep_best(scores: torch.Tensor, budget: int, window: int) -> torch.Tensor:
    """Return which tokens stay, `[B, G, budget]`, in temporal order.

    `scores` is `[B, G, S - W]`: the best of them and the last W. Of equal ones the earlier stays.
    """
    older = scores.shape[-1]
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    best = order[..., : budget - window].sort(-1).values
    recent = torch.arange(older, older + window, device=scores.device)
    return torch.cat([best, recent.expand(*best.shape[:-1], window)], dim=-1)
