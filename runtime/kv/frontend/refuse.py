"""What a KV policy cannot be combined with, refused at the start of an engine."""

from __future__ import annotations

from interv.errors import IntervError, raise_all
from interv.kv.settings import KvSettings
from interv.runtime import compat


def refuse_config(config: compat.VllmConfig, settings: KvSettings) -> None:
    """Raise IntervError E570 for each feature of an engine that a policy cannot run with.

    And for a vLLM that lacks what a policy needs.
    """
    if lacks := compat.lacks("kv"):
        raise _refusal(settings.policy, f"vLLM {compat.vllm_version()}, which lacks {lacks}")
    parallel, cache, model = config.parallel_config, config.cache_config, config.model_config
    transfer, device = config.kv_transfer_config, config.device_config.device_type
    refused = {
        "speculative decoding": config.speculative_config is not None,
        "KV connectors": transfer is not None,
        "KV cache offloading": bool(cache.kv_offloading_size),
        "decode context parallelism": parallel.decode_context_parallel_size > 1,
        "prefill context parallelism": parallel.prefill_context_parallel_size > 1,
        "pipeline parallelism": parallel.pipeline_parallel_size > 1,
        "micro-batches": bool(parallel.use_ubatching),
        "a quantised KV cache": str(cache.cache_dtype) not in ("auto", "bfloat16", "float16"),
        "fast prefill of shared caches": bool(cache.kv_sharing_fast_prefill),
        "MLA": bool(model.use_mla),
        "encoder-decoder models": bool(model.is_encoder_decoder),
        "pooling models": model.runner_type == "pooling",
        "scope per_layer and tensor parallelism": (
            settings.scope == "per_layer" and parallel.tensor_parallel_size > 1
        ),
        f"attention on {device}": device not in ("cpu", "cuda"),
        "attention on ROCm": device == "cuda" and compat.is_rocm(),
    }
    raise_all([_refusal(settings.policy, name) for name, on in refused.items() if on])


def _refusal(policy: str, name: str) -> IntervError:
    return IntervError("E570", f"kv {policy} is not supported with {name}")
