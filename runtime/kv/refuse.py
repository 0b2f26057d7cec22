"""What a KV policy cannot be combined with, refused at the start of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interv.errors import IntervError, raise_all
from interv.kv.settings import KvSettings
from interv.runtime import compat


def refuse_config(config: compat.VllmConfig, settings: KvSettings) -> None:
    """Raise IntervError E570 for each feature of an engine that a policy cannot run with."""
    parallel, cache, model = config.parallel_config, config.cache_config, config.model_config
    transfer = config.kv_transfer_config
    refused = {
        "speculative decoding": config.speculative_config is not None,
        "KV connectors": transfer is not None,
        "KV cache offloading": bool(getattr(cache, "kv_offloading_size", None)),
        "decode context parallelism": parallel.decode_context_parallel_size > 1,
        "prefill context parallelism": getattr(parallel, "prefill_context_parallel_size", 1) > 1,
        "pipeline parallelism": parallel.pipeline_parallel_size > 1,
        "micro-batches": bool(getattr(parallel, "use_ubatching", False)),
        "a quantised KV cache": str(cache.cache_dtype) not in ("auto", "bfloat16", "float16"),
        "fast prefill of shared caches": bool(cache.kv_sharing_fast_prefill),
        "MLA": bool(model.use_mla),
        "encoder-decoder models": bool(model.is_encoder_decoder),
        "pooling models": model.runner_type == "pooling",
        "scope per_layer and tensor parallelism": (
            settings.scope == "per_layer" and parallel.tensor_parallel_size > 1
        ),
        "vLLM's second model runner": bool(config.use_v2_model_runner),
        f"attention on {config.device_config.device_type}": (
            config.device_config.device_type != "cpu"
        ),
    }
    raise_all([_refusal(settings.policy, name) for name, on in refused.items() if on])


def refuse_worker(runner: compat.Runner) -> None:
    """Raise IntervError E571 for a runner that has none of the hooks."""
    wanted = ("get_kv_cache_spec", "initialize_kv_cache", "_update_states", "_model_forward")
    missing = [name for name in wanted if not hasattr(runner, name)]
    if compat.is_v2(runner) or missing:
        raise IntervError(
            "E571",
            f"a KV policy cannot be attached to {type(runner).__name__}",
            notes=[f"it lacks: {', '.join(missing)}"] if missing else [],
        )


def refuse_layers(specs: Mapping[str, Any], runner: compat.Runner) -> None:
    """Raise IntervError E572 for layers whose cache is more or less than every token's."""
    kinds = compat.full_attention_kinds()
    errors = []
    for name, spec in specs.items():
        window = getattr(spec, "sliding_window", None) or getattr(
            spec, "attention_chunk_size", None
        )
        if type(spec) not in kinds or window:
            errors.append(_not_full(name, spec, window))
    module = runner.compilation_config.static_forward_context
    for name in specs:
        if getattr(module[name].impl, "alibi_slopes", None) is not None:
            errors.append(
                IntervError(
                    "E572",
                    f"layer '{name}' counts positions from its cache (ALiBi), which a KV policy"
                    " leaves with gaps",
                )
            )
    if runner.shared_kv_cache_layers:
        shared = ", ".join(sorted(runner.shared_kv_cache_layers)[:3])
        errors.append(
            IntervError("E572", f"layers share the caches of others, a KV policy cannot: {shared}")
        )
    # A model has many layers of a kind: the first few say it.
    raise_all(errors[:3])


def _not_full(name: str, spec: Any, window: int | None) -> IntervError:
    kind = f"{type(spec).__name__}" + (f", window {window}" if window else "")
    return IntervError(
        "E572",
        f"layer '{name}' has no full attention: {kind}",
        notes=["a KV policy drops what full attention would have kept"],
        helps=["leave 'kv' out of the document for this model"],
    )


def _refusal(policy: str, name: str) -> IntervError:
    return IntervError("E570", f"kv {policy} is not supported with {name}")
