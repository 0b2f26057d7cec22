"""What a KV policy is: it scores the tokens that the cache holds, and says which of them stay.

A package brings one of its own under the entry-point group `interv.kv`:

    [project.entry-points."interv.kv"]
    newest = "my_package:Newest"

    class Newest(Policy):
        needs_queries = False

        def score(self, keys, queries, scale):
            batch, groups, length, _ = keys.shape
            count = length - self.settings.window
            older = torch.arange(count, dtype=torch.float32, device=keys.device)
            return older.expand(batch, groups, -1)

and documents then say `kv newest { budget = 512 }`. Memory, blocks, the prefix cache and
preemption are the machinery's; a policy is called between forward passes, with tensors that it
must not change, and must return the same for the same tensors on every rank.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib import metadata

import torch

from interv.errors import IntervError
from interv.kv.scoring import importance, keep_best, redundancy
from interv.kv.settings import GROUP, KvSettings, known_policies


class Policy(ABC):
    """Base class of KV policies.

    `needs_queries`: whether `score` looks at the last queries; where it does not, none are kept.
    Dims as in `interv.kv.scoring`.
    """

    needs_queries = True

    def __init__(self, settings: KvSettings) -> None:
        """Take the document's settings; raise IntervError E297 or E298 for options of its own."""
        self.settings = settings

    @abstractmethod
    def score(self, keys: torch.Tensor, queries: torch.Tensor | None, scale: float) -> torch.Tensor:
        """Score all but the last `window` tokens, `[B, G, S - W]` float32, higher stays.

        `keys` is `[B, G, S, D]`; `queries` `[B, W, N, D]`, None where `needs_queries` is false;
        `scale` is what attention multiplies logits with.
        """

    def keep(self, keys: torch.Tensor, queries: torch.Tensor | None, scale: float) -> torch.Tensor:
        """Return the tokens that stay, `[B, G, budget]`, ascending; by default the best scores.

        Under scope `per_layer` the heads of a layer vote: the mean of their scores decides for
        all of them.
        """
        scores = self.score(keys, queries, scale)
        if self.settings.scope == "per_layer":
            scores = scores.mean(1, keepdim=True).expand_as(scores)
        return keep_best(scores, self.settings.budget, self.settings.window)


class R1KV(Policy):
    """`lambda` times importance minus the rest of it times redundancy."""

    def score(self, keys: torch.Tensor, queries: torch.Tensor | None, scale: float) -> torch.Tensor:
        """Score by λ·importance − (1 − λ)·redundancy. Source: R-KV."""
        assert queries is not None
        option, window = self.settings.option, self.settings.window
        weight = float(option("lambda"))
        score = weight * importance(keys, queries, scale, int(option("kernel")))
        if weight < 1:
            repeats = redundancy(keys, float(option("threshold")))
            score = score - (1 - weight) * repeats[..., :-window]
        return score


class SnapKV(Policy):
    """Importance alone: R1KV with λ = 1."""

    def score(self, keys: torch.Tensor, queries: torch.Tensor | None, scale: float) -> torch.Tensor:
        """Score by importance."""
        assert queries is not None
        return importance(keys, queries, scale, int(self.settings.option("kernel")))


class Streaming(Policy):
    """The first `sinks` tokens and the most recent ones; nothing is looked at."""

    needs_queries = False

    def score(self, keys: torch.Tensor, queries: torch.Tensor | None, scale: float) -> torch.Tensor:
        """Score by place: later is better, and the sinks are best."""
        batch, groups, length, _ = keys.shape
        older = length - self.settings.window
        place = torch.arange(older, device=keys.device, dtype=torch.float32)
        place[: int(self.settings.option("sinks"))] += length
        return place.expand(batch, groups, older)


_BUILT_IN: Mapping[str, Callable[[KvSettings], Policy]] = {
    "r1kv": R1KV,
    "snapkv": SnapKV,
    "streaming": Streaming,
}


def make_policy(settings: KvSettings) -> Policy:
    """Return the policy of some settings.

    Raises E296 where it does not exist or is no policy, and what the policy says of its options.
    """
    made = _BUILT_IN.get(settings.policy)
    if made is not None:
        return made(settings)
    for entry in metadata.entry_points(group=GROUP, name=settings.policy):
        cls = entry.load()
        if not (isinstance(cls, type) and issubclass(cls, Policy)):
            raise IntervError(
                "E296",
                f"'{entry.value}' is not a KV policy",
                notes=[f"the entry point '{settings.policy}' of group '{GROUP}' names it"],
                helps=["derive it from interv.kv.policy.Policy"],
            )
        return cls(settings)
    raise IntervError(
        "E296",
        f"'{settings.policy}' is not a KV policy",
        notes=[f"policies here: {', '.join(known_policies())}"],
    )
