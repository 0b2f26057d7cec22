"""The worker's side of clean blocks: zeros in every layer's cache, before a step writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from interv.runtime import compat
from interv.runtime.kv.worker.layout import fill
from interv.runtime.wrap import wrap


def hook_blank(runner: compat.Runner) -> None:
    """Have a runner blank the blocks that a step names, on a CPU as on a GPU.

    On a GPU vLLM's own kernel does it where it knows all layers, one launch for all of them, on the
    stream of the model. With a KV policy it waits until what is packed in the step has been read:
    the block that one request gives up may be one that another is given.
    """

    def blank(original: Any, ids: Sequence[int]) -> None:
        if runner.device.type != "cpu" and compat.blanks_every_kind(runner.kv_cache_config):
            original(ids)
            return
        for cache in _caches(runner):
            fill(cache, runner.kv_cache_config.num_blocks, ids)

    def zero(original: Any, ids: Sequence[int]) -> None:
        kv = getattr(runner, "interv_kv", None)
        if kv is None:
            blank(original, ids)
        else:
            kv.blanks(ids, lambda: blank(original, ids))

    if not compat.is_v2(runner):
        wrap(runner, "_zero_block_ids", zero)
        return

    def meta(original: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        wrap(runner.kv_block_zeroer, "zero_block_ids", zero)
        return result

    wrap(runner, "_init_kv_zero_meta", meta)


def _caches(runner: compat.Runner) -> Iterator[torch.Tensor]:
    """Yield the caches of all attention layers, each once where layers share one."""
    layers, seen = runner.compilation_config.static_forward_context, set()
    for group in runner.kv_cache_config.kv_cache_groups:
        for name in compat.attention_layers(group):
            cache = layers[name].kv_cache
            if isinstance(cache, torch.Tensor) and cache.data_ptr() not in seen:
                seen.add(cache.data_ptr())
                yield cache
