"""The independent oracle: Hugging Face Transformers, one token at a time, on a compacted cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tests.kv.reference import Numbers, kept


class CompressedOracle:
    """A Llama model in fp32 whose cache is cut by `reference.kept`, counting token by token."""

    def __init__(self, model: str | Path) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        self._queries: dict[int, torch.Tensor] = {}  # by layer, [tokens, N, D]

    def greedy(
        self, prompt: list[int], tokens: int, numbers: Numbers, buffer: int
    ) -> tuple[list[int], list[int]]:
        """Return the greedy answer, and the counts of tokens at which the cache was cut."""
        from transformers import DynamicCache

        cache, ids, points = DynamicCache(), list[int](), list[int]()
        held, fed = 0, prompt
        with torch.no_grad(), self._watched():
            while True:
                count = len(prompt) + len(ids)
                place = torch.arange(count - len(fed), count)[None]
                out = self.model(
                    torch.tensor([fed]), position_ids=place, past_key_values=cache, use_cache=True
                )
                ids.append(int(out.logits[0, -1].argmax()))
                held += len(fed)
                if len(ids) == tokens:
                    return ids, points
                if held >= numbers.budget + buffer:
                    self._cut(cache, numbers)
                    held = numbers.budget
                    points.append(count)
                fed = ids[-1:]

    def _cut(self, cache: Any, numbers: Numbers) -> None:
        for index, layer in enumerate(cache.layers):
            keys, values = layer.keys[0], layer.values[0]  # [G, S, D]
            stay = torch.tensor(kept(keys, self._queries[index][-numbers.window :], numbers))
            at = stay[..., None].expand(-1, -1, keys.shape[-1])
            layer.keys, layer.values = keys.gather(1, at)[None], values.gather(1, at)[None]

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Keep the last queries of every layer, rotated, as attention sees them."""
        from transformers.models.llama import modeling_llama

        plain = modeling_llama.eager_attention_forward
        self._queries = {}

        def watch(module: Any, query: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            new = query[0].transpose(0, 1)
            before = self._queries.get(module.layer_idx, new[:0])
            self._queries[module.layer_idx] = torch.cat([before, new])[-64:]
            return plain(module, query, *args, **kwargs)

        modeling_llama.eager_attention_forward = watch
        try:
            yield
        finally:
            modeling_llama.eager_attention_forward = plain
