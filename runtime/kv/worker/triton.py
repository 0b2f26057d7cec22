"""Attention by Triton kernels, over caches that a KV policy compacts."""

from __future__ import annotations

from vllm.v1.attention.backends.triton_attn import (
    TritonAttentionBackend,
    TritonAttentionImpl,
    TritonAttentionMetadataBuilder,
)

from interv.runtime.kv.worker.attention import Keeping, Shortening


class CompressingTritonImpl(Keeping, TritonAttentionImpl):  # type: ignore[misc]  # vLLM is untyped
    """What attends."""


class CompressingTritonBuilder(Shortening, TritonAttentionMetadataBuilder):  # type: ignore[misc]
    """What prepares a forward pass."""


class CompressingTritonBackend(TritonAttentionBackend):  # type: ignore[misc]  # vLLM is untyped
    """vLLM's backend with the two classes above."""

    @staticmethod
    def get_impl_cls() -> type[CompressingTritonImpl]:
        """Return what attends."""
        return CompressingTritonImpl

    @staticmethod
    def get_builder_cls() -> type[CompressingTritonBuilder]:
        """Return what prepares a forward pass."""
        return CompressingTritonBuilder
