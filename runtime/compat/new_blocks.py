"""Which new blocks vLLM notes, for the worker to blank: up to 0.27 those of full attention only."""

from __future__ import annotations

from typing import Any

from interv.runtime.compat.lookup import way
from interv.runtime.compat.seams_scheduler import NEW_BLOCKS


def note_new_blocks(manager: Any) -> None:
    """Have a cache manager note the new blocks of all that is attended to."""
    if way(NEW_BLOCKS) == 0:
        return
    from vllm.v1.kv_cache_interface import AttentionSpec

    for one in manager.coordinator.single_type_managers:
        one._record_new_block_ids |= isinstance(one.kv_cache_spec, AttentionSpec)


def blanks_every_kind(kv_cache_config: Any) -> bool:
    """Say whether vLLM's own kernel blanks the caches of every attention layer of an engine."""
    if way(NEW_BLOCKS) == 0:
        return True
    from vllm.v1.kv_cache_interface import AttentionSpec, FullAttentionSpec

    specs = [group.kv_cache_spec for group in kv_cache_config.kv_cache_groups]
    each = [one for spec in specs for one in getattr(spec, "kv_cache_specs", {"": spec}).values()]
    attention = [one for one in each if isinstance(one, AttentionSpec)]
    return all(isinstance(one, FullAttentionSpec) for one in attention)
