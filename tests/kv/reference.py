"""The policies head by head, with the whole S × S matrix, as their paper and its code write them.

Independent of `interv.kv`: only the names of the options are shared.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Numbers:
    """The numbers of a policy, as the paper calls them."""

    budget: int
    window: int = 8
    kernel: int = 7
    threshold: float = 0.5
    weight: float = 0.1  # λ
    per_layer: bool = False
    sinks: int | None = None  # of streaming


def kept(keys: torch.Tensor, queries: torch.Tensor, numbers: Numbers) -> list[list[int]]:
    """Return the tokens that stay of each head of one layer.

    `keys` is `[G, S, D]`, `queries` `[W, N, D]`.
    """
    heads, length = keys.shape[:2]
    if numbers.sinks is not None:
        recent = length - (numbers.budget - numbers.sinks)
        return [[*range(numbers.sinks), *range(recent, length)]] * heads
    scores = [_score(keys[g], _group(queries, g, heads), numbers) for g in range(heads)]
    if numbers.per_layer:
        scores = [torch.stack(scores).mean(0)] * heads
    return [_best(one.tolist(), length, numbers) for one in scores]


def _group(queries: torch.Tensor, g: int, heads: int) -> torch.Tensor:
    """Return the queries of the heads that share kv head g, `[M, W, D]`."""
    shared = queries.shape[1] // heads
    return queries[:, g * shared : (g + 1) * shared].transpose(0, 1)


def _best(scores: list[float], length: int, numbers: Numbers) -> list[int]:
    older = sorted(range(length - numbers.window), key=lambda j: (-scores[j], j))
    recent = range(length - numbers.window, length)
    return sorted([*older[: numbers.budget - numbers.window], *recent])


def _score(keys: torch.Tensor, queries: torch.Tensor, numbers: Numbers) -> torch.Tensor:
    older = keys.shape[0] - numbers.window
    score = numbers.weight * _importance(keys, queries, numbers)
    if numbers.weight == 1:
        return score
    return score - (1 - numbers.weight) * redundancy(keys, numbers.threshold)[:older]


def _importance(keys: torch.Tensor, queries: torch.Tensor, numbers: Numbers) -> torch.Tensor:
    older = keys.shape[0] - numbers.window
    logits = torch.stack([one @ keys[:older].T for one in queries]) / keys.shape[1] ** 0.5
    attention = torch.softmax(logits.max(0).values, -1).mean(0)
    half = numbers.kernel // 2
    return torch.stack([attention[max(0, j - half) : j + half + 1].max() for j in range(older)])


def redundancy(keys: torch.Tensor, threshold: float) -> torch.Tensor:
    unit = keys / (keys.norm(dim=-1, keepdim=True) + 1e-8)
    cosine = unit @ unit.T
    cosine.fill_diagonal_(0.0)
    for i in range(len(cosine)):
        above = (cosine[i] > threshold).nonzero().flatten().tolist()
        cosine[i, above[-1] if above else 0] = 0.0
    return torch.softmax(cosine.mean(0), -1)
