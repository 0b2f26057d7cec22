"""What a KV policy adds to vLLM's attention, whichever backend attends.

Each backend is registered in place of vLLM's own: `on_cpu.py`, `flash.py` and `triton.py` beside
this file. Without a policy, in an engine that was made later in this process, it is vLLM's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from interv.runtime.kv.worker.ring import Ring
    from interv.runtime.kv.worker.steps import Steps

# What vLLM's selection of a backend says is replaced by.
BACKENDS = {
    "CPU_ATTN": "interv.runtime.kv.worker.on_cpu.CompressingCpuBackend",
    "FLASH_ATTN": "interv.runtime.kv.worker.flash.CompressingFlashBackend",
    "TRITON_ATTN": "interv.runtime.kv.worker.triton.CompressingTritonBackend",
}


class Keeping:
    """Attention that keeps the last queries of requests near a compaction."""

    kv_ring: Ring | None = None
    kv_layer = -1

    def forward(self, layer: Any, query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Keep what is asked for of `query` `[T, N, D]`, then attend."""
        if self.kv_ring is not None:
            self.kv_ring.note(self.kv_layer, query)
        out: torch.Tensor = super().forward(  # type: ignore[misc]  # of vLLM's class behind it
            layer, query, *args, **kwargs
        )
        return out


class Shortening:
    """Metadata in which a compacted request is as long as what is left of it."""

    kv_steps: Steps | None = None
    kv_lengths: torch.Tensor | None = None  # what a captured graph reads, where there are such

    def build(
        self, common_prefix_len: int, common_attn_metadata: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Build the metadata of a forward pass."""
        if self.kv_steps is not None:
            common_attn_metadata = self.kv_steps.shortened(common_attn_metadata, self.kv_lengths)
        return super().build(  # type: ignore[misc]  # of vLLM's class behind it
            common_prefix_len, common_attn_metadata, *args, **kwargs
        )
