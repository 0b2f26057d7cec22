"""CPU attention over a compacted cache, registered in place of vLLM's own.

Without a compressor, in an engine that has no KV policy, it is vLLM's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadataBuilder,
)

if TYPE_CHECKING:
    from interv.runtime.kv.ring import Ring
    from interv.runtime.kv.steps import Steps


class CompressingImpl(CPUAttentionBackendImpl):  # type: ignore[misc]  # vLLM is untyped
    """Attention that keeps the last queries of requests near a compaction."""

    kv_ring: Ring | None = None
    kv_layer = -1

    def forward(self, layer: Any, query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Keep what is asked for of `query` `[T, N, D]`, then attend."""
        if self.kv_ring is not None:
            self.kv_ring.note(self.kv_layer, query)
        out: torch.Tensor = super().forward(layer, query, *args, **kwargs)
        return out


class CompressingBuilder(CPUAttentionMetadataBuilder):  # type: ignore[misc]  # vLLM is untyped
    """Metadata in which a compacted request is as long as what is left of it."""

    kv_steps: Steps | None = None

    def build(
        self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False
    ) -> Any:
        """Build the metadata of a forward pass."""
        if self.kv_steps is not None:
            common_attn_metadata = self.kv_steps.shortened(common_attn_metadata)
        return super().build(common_prefix_len, common_attn_metadata, fast_build)


class CompressingBackend(CPUAttentionBackend):  # type: ignore[misc]  # vLLM is untyped
    """vLLM's CPU attention with the two classes above."""

    @staticmethod
    def get_impl_cls() -> type[CompressingImpl]:
        """Return what attends."""
        return CompressingImpl

    @staticmethod
    def get_builder_cls() -> type[CompressingBuilder]:
        """Return what prepares a forward pass."""
        return CompressingBuilder
