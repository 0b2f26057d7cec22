"""Attention on a CPU, over caches that a KV policy compacts."""

from __future__ import annotations

from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadataBuilder,
)

from interv.runtime.kv.worker.attention import Keeping, Shortening


class CompressingCpuImpl(Keeping, CPUAttentionBackendImpl):  # type: ignore[misc]  # vLLM is untyped
    """What attends."""


class CompressingCpuBuilder(Shortening, CPUAttentionMetadataBuilder):  # type: ignore[misc]
    """What prepares a forward pass."""


class CompressingCpuBackend(CPUAttentionBackend):  # type: ignore[misc]  # vLLM is untyped
    """vLLM's backend with the two classes above."""

    @staticmethod
    def get_impl_cls() -> type[CompressingCpuImpl]:
        """Return what attends."""
        return CompressingCpuImpl

    @staticmethod
    def get_builder_cls() -> type[CompressingCpuBuilder]:
        """Return what prepares a forward pass."""
        return CompressingCpuBuilder
