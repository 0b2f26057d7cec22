"""FlashAttention on CUDA, over caches that a KV policy compacts."""

from __future__ import annotations

from vllm.v1.attention.backends.flash_attn import (
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadataBuilder,
)

from interv.runtime.kv.worker.attention import Keeping, Shortening


class CompressingFlashImpl(Keeping, FlashAttentionImpl):  # type: ignore[misc]  # vLLM is untyped
    """What attends."""


class CompressingFlashBuilder(Shortening, FlashAttentionMetadataBuilder):  # type: ignore[misc]
    """What prepares a forward pass."""


class CompressingFlashBackend(FlashAttentionBackend):  # type: ignore[misc]  # vLLM is untyped
    """vLLM's backend with the two classes above."""

    @staticmethod
    def get_impl_cls() -> type[CompressingFlashImpl]:
        """Return what attends."""
        return CompressingFlashImpl

    @staticmethod
    def get_builder_cls() -> type[CompressingFlashBuilder]:
        """Return what prepares a forward pass."""
        return CompressingFlashBuilder
