"""Read texts and answer questions under a KV policy with Transformers, without an engine."""

from __future__ import annotations

from typing import Any

import torch

from interv.kv.policy import Policy, make_policy
from interv.kv.schedule import Schedule
from interv.kv.settings import KvSettings

_NAME = "interv_watched"


class Reader:
    """A model in fp32 whose cache is compacted at the counts that an engine compacts at."""

    def __init__(self, model: str) -> None:
        """Load the model and its tokenizer."""
        from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer
        from transformers.integrations.sdpa_attention import sdpa_attention_forward
        from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

        self._queries: dict[int, torch.Tensor] = {}  # by layer, [T, N, D], rotated

        def watch(module: Any, query: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self._queries[module.layer_idx] = query[0].transpose(0, 1)
            return sdpa_attention_forward(module, query, *args, **kwargs)

        AttentionInterface.register(_NAME, watch)
        AttentionMaskInterface.register(_NAME, sdpa_mask)
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self._model = AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, attn_implementation=_NAME
        ).eval()

    def read(self, ids: list[int], settings: KvSettings | None) -> list[float]:
        """Return the log-probability of every token but the first."""
        found: list[torch.Tensor] = []
        self._run(ids, settings, found)
        logits = torch.cat(found)[:-1].float()
        wanted = torch.tensor(ids[1:])[:, None]
        values: list[float] = logits.log_softmax(-1).gather(1, wanted)[:, 0].tolist()
        return values

    def says(self, ids: list[int], answer: list[int], settings: KvSettings | None) -> bool:
        """Say whether the greedy continuation of a question begins with an answer."""
        found: list[torch.Tensor] = []
        self._run([*ids, *answer], settings, found)
        best: list[int] = torch.cat(found)[len(ids) - 1 : -1].argmax(-1).tolist()
        return best == answer

    @torch.no_grad()
    def held(self, ids: list[int], window: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what a compaction sees: keys `[L, G, S, D]`, last queries `[L, W, N, D]`."""
        from transformers import DynamicCache

        cache = DynamicCache()
        self._model(torch.tensor([ids]), past_key_values=cache, use_cache=True)
        return self._seen(cache, window)

    def _seen(self, cache: Any, window: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys = torch.stack([layer.keys[0] for layer in cache.layers])
        return keys, torch.stack([self._queries[i][-window:] for i in range(len(keys))])

    @torch.no_grad()
    def _run(self, ids: list[int], settings: KvSettings | None, found: list[torch.Tensor]) -> None:
        """Feed all tokens up to every compaction; add the logits `[T, V]` of each piece."""
        from transformers import DynamicCache

        cache, count = DynamicCache(), 0
        schedule = None if settings is None else Schedule.of(settings, len(ids))
        policy = None if settings is None else make_policy(settings)
        while count < len(ids):
            if schedule is not None and policy is not None and schedule.is_point(count):
                self._cut(cache, policy)
            left = len(ids) - count
            new = left if schedule is None else schedule.clip(count, left)
            place = torch.arange(count, count + new)
            piece = torch.tensor([ids[count : count + new]])
            out = self._model(
                piece, position_ids=place[None], past_key_values=cache, use_cache=True
            )
            found.append(out.logits[0])
            count += new

    def _cut(self, cache: Any, policy: Policy) -> None:
        keys, queries = self._seen(cache, policy.settings.window)
        keep = policy.keep(keys, queries, keys.shape[-1] ** -0.5)
        at = keep[..., None].expand(-1, -1, -1, keys.shape[-1])
        for layer, index in zip(cache.layers, at, strict=True):
            layer.keys = layer.keys[0].gather(1, index)[None]
            layer.values = layer.values[0].gather(1, index)[None]
