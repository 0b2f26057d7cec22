"""The KV-cache spec of compressed layers, registered with its manager where it is imported.

A spec travels from the workers to the engine core by pickle, which imports this module there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.kv_cache_spec_registry import KVCacheSpecRegistry

from interv.kv.settings import KvSettings
from interv.runtime.kv.scheduler.manager import CompressingManager


@dataclass(frozen=True, kw_only=True)
class CompressedSpec(FullAttentionSpec):  # type: ignore[misc]  # vLLM is untyped
    """Full attention over what a policy keeps; `settings` is never None but in a merge."""

    settings: KvSettings | None = None

    @classmethod
    def of(cls, spec: Any, settings: KvSettings) -> CompressedSpec:
        """Return the spec of a layer with full attention, under a policy."""
        fields = {name: getattr(spec, name) for name in type(spec).__dataclass_fields__}
        return cls(**fields, settings=settings)

    @classmethod
    def merge(cls, specs: list[Any]) -> Any:
        """Return the one spec of a group of layers."""
        return replace(super().merge(specs), settings=specs[0].settings)

    def max_num_blocks_per_req(self, vllm_config: Any, max_len: int) -> int:
        """Return the length of a block table's row.

        In the step that compacts a request it holds the old blocks and the new ones for a moment.
        """
        assert self.settings is not None
        least: int = super().max_num_blocks_per_req(vllm_config, max_len)
        return least + self.settings.blocks(self.block_size) + 1


# The registry fills itself on first use, and only while it is empty.
KVCacheSpecRegistry._ensure_registered()
KVCacheSpecRegistry.register(
    CompressedSpec, manager_class=CompressingManager, uniform_type_base_spec=FullAttentionSpec
)
