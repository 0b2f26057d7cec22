"""Compaction: read what a request holds, let the policy choose, pack what stays.

Dims: `L` layers, `G` kv heads, `S` tokens held, `D` head size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from interv.kv.policy import Policy
from interv.runtime.kv.worker.layout import Layout, fill
from interv.runtime.kv.worker.ring import Ring

# The most elements of keys that are read at once, of all jobs: 128 MiB of float32.
_MOST = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Job:
    """One request to compact: its `held` tokens lie in `sources` and are packed into `targets`.

    `count` is how many of its tokens were computed; both lists are numbers of blocks, int64, on the
    device of the caches.
    """

    request: str
    count: int
    held: int
    sources: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's cache `[blocks, G, block, 2 D]`, and vLLM's own way to write it.

    `write(key [T, G, D], value [T, G, D], slots [T])`.
    """

    cache: torch.Tensor
    write: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True, slots=True)
class Compactor:
    """Compacts requests of one worker, between forward passes."""

    policy: Policy
    layers: Sequence[Layer]
    layout: Layout
    ring: Ring | None
    scale: float  # of attention's logits

    def run(self, jobs: Sequence[Job], blank: Sequence[int] = ()) -> None:
        """Compact some requests, batched over layers and over requests of one length.

        Of a few layers everything is read before anything is written: a block that one request
        gives back may be among those that another one packs into, or among those that are to be
        zeros before the step writes, `blank`.
        """
        with torch.inference_mode():
            for layers in self._portions(jobs):
                read = [self._read(layers, job) for job in jobs]
                kept = list(self._choose(layers, jobs, [keys for keys, _ in read]))
                for i in layers if blank else ():
                    fill(self.layers[i].cache, len(self.layers[i].cache), blank)
                for job, (keys, values), keep in zip(jobs, read, kept, strict=True):
                    self._pack(layers, job, keys, values, keep)
        if self.ring is not None:
            for job in jobs:
                self.ring.leave(job.request)

    def _portions(self, jobs: Sequence[Job]) -> Iterator[Sequence[int]]:
        groups, _, twice = self.layers[0].cache.shape[1:]
        each = sum(job.held for job in jobs) * groups * twice // 2
        step = max(1, _MOST // each)
        return (
            range(start, min(start + step, len(self.layers)))
            for start in range(0, len(self.layers), step)
        )

    def _read(self, layers: Sequence[int], job: Job) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of a request in temporal order, each `[L, G, S, D]`."""
        both = [self.layout.read(self.layers[i].cache, job.sources) for i in layers]
        keys, values = (torch.stack(one)[:, :, : job.held] for one in zip(*both, strict=True))
        return keys, values

    def _choose(
        self, layers: Sequence[int], jobs: Sequence[Job], keys: Sequence[torch.Tensor]
    ) -> Iterator[torch.Tensor]:
        """Yield what stays of each request, `[L, G, budget]`, in the order of the jobs."""
        order = sorted(range(len(jobs)), key=lambda i: jobs[i].held)
        found: dict[int, torch.Tensor] = {}
        for _, alike in itertools.groupby(order, key=lambda i: jobs[i].held):
            group = list(alike)
            queries = None
            if self.ring is not None:
                each = [self.ring.queries(layers, jobs[i].request, jobs[i].count) for i in group]
                queries = torch.cat(each)
            kept = self.policy.keep(torch.cat([keys[i] for i in group]), queries, self.scale)
            found |= dict(zip(group, kept.split(len(layers)), strict=True))
        return (found[i] for i in range(len(jobs)))

    def _pack(
        self,
        layers: Sequence[int],
        job: Job,
        keys: torch.Tensor,
        values: torch.Tensor,
        keep: torch.Tensor,
    ) -> None:
        """Write what stays of a request behind one another into its first blocks."""
        index = keep[..., None].expand(*keep.shape, keys.shape[-1])
        # Token by token, as vLLM writes them: [L, budget, G, D].
        packed = [one.gather(2, index).transpose(1, 2).contiguous() for one in (keys, values)]
        size = self.layout.block_size
        place = torch.arange(keep.shape[-1], device=keep.device)
        slots = job.targets[place // size] * size + place % size
        for at, layer in enumerate(layers):
            self.layers[layer].write(packed[0][at], packed[1][at], slots)
