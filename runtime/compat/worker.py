"""What a worker is, what it runs, and the caches of its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from interv.runtime.compat.configuration import VllmConfig

if TYPE_CHECKING:
    from interv.passes.captured.dataflow import Keeps

Runner: TypeAlias = Any
Worker: TypeAlias = Any


def pipeline_stage() -> int:
    """Return the number of this worker's pipeline stage."""
    from vllm.distributed.parallel_state import get_pp_group

    return int(get_pp_group().rank_in_group)


def is_first_of_tensor_parallel() -> bool:
    """Say whether this worker speaks for its tensor-parallel group."""
    from vllm.distributed.parallel_state import get_tp_group

    return bool(get_tp_group().rank_in_group == 0)


def is_first_worker(config: VllmConfig) -> bool:
    """Say whether this worker speaks for its engine, and for all data-parallel copies of it."""
    parallel = config.parallel_config
    copy = getattr(parallel, "data_parallel_index", parallel.data_parallel_rank)
    return copy == 0 and pipeline_stage() == 0 and is_first_of_tensor_parallel()


def owned_layers(config: VllmConfig, num_layers: int) -> range:
    """Return the layers of this process's pipeline stage."""
    from vllm.distributed.parallel_state import get_pp_group
    from vllm.distributed.utils import get_pp_indices

    group = get_pp_group()
    return range(*get_pp_indices(num_layers, group.rank_in_group, group.world_size))


def is_backbone() -> bool:
    """Say whether the model that is being built is the language model, not a draft head."""
    from vllm.compilation import backends

    return getattr(backends, "model_tag", "backbone") == "backbone"


def keepers(config: VllmConfig) -> Keeps:
    """Return what tells the names of layers that keep what earlier tokens left.

    vLLM makes the caches of attention and the states of recurrences for layers of one base class,
    and every op that reads one finds it by the layer's name: a string, or on newer versions of
    torch an object that the graph takes as an input.
    """
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    layers = config.compilation_config.static_forward_context

    def keeps(argument: Any) -> bool:
        name = argument if isinstance(argument, str) else layer_name(argument)
        return name is not None and isinstance(layers.get(name), AttentionLayerBase)

    return keeps


def layer_name_type() -> str | None:
    """Return what schemas of ops call names of layers that are inputs of a graph, if they are."""
    try:
        from torch._library.opaque_object import get_opaque_type_name
        from vllm.utils.torch_utils import _USE_LAYERNAME, LayerName

        return str(get_opaque_type_name(LayerName)) if _USE_LAYERNAME else None
    except (ImportError, ValueError):  # of torch: it is no type of its own there
        return None


def layer_name(argument: Any) -> str | None:
    """Return the name that such an input is, or its stand-in in a trace; None for all else."""
    name = getattr(getattr(argument, "real_obj", argument), "value", None)
    return name if isinstance(name, str) else None


def graph_passes_class() -> Any:
    """Return what runs vLLM's passes over each piece of a graph, last before code is made."""
    from vllm.compilation.passes.pass_manager import PostGradPassManager

    return PostGradPassManager


def replace_attention(classes: Mapping[str, str]) -> None:
    """Have layers that are made from now on use other classes for attention, by backends' names."""
    from vllm.v1.attention import selector
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    for name, path in classes.items():
        register_backend(AttentionBackendEnum[name], path)
    # An engine that was made before in this process has asked already.
    selector._cached_get_attn_backend.cache_clear()


def full_attention_kinds() -> tuple[type, ...]:
    """Return the specs of caches that hold every token of a layer, and nothing else."""
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    return (FullAttentionSpec,)


def blanks_all(kv_cache_config: Any) -> bool:
    """Say whether vLLM blanks every new block of such caches, whoever wrote it."""
    mixed = getattr(kv_cache_config, "has_mixed_precision_kv_cache", False)
    return bool(kv_cache_config.has_mamba_layers or mixed)


def attention_layers(group: Any) -> Sequence[str]:
    """Return the layers of a group of caches that hold keys and values."""
    from vllm.v1.kv_cache_interface import AttentionSpec, UniformTypeKVCacheSpecs

    spec = group.kv_cache_spec
    each = spec.kv_cache_specs if isinstance(spec, UniformTypeKVCacheSpecs) else {}
    names: Sequence[str] = group.layer_names
    return [one for one in names if isinstance(each.get(one, spec), AttentionSpec)]


def attention_name(layer: Any) -> str:
    """Return the name of the backend that a layer attends by, as users choose it."""
    return str(layer.get_attn_backend().get_name())


def adapter_wrappers(runner: Runner) -> tuple[Any, ...]:
    """Return what computes LoRA for the parts of a runner's model, in a fixed order."""
    return tuple(runner.lora_manager._adapter_manager.punica_wrapper_mapping.values())


def captures_attention(runner: Runner) -> bool:
    """Say whether a runner may replay graphs that hold attention, and not what is around it."""
    mode = runner.compilation_config.cudagraph_mode
    return mode is not None and bool(mode.has_full_cudagraphs())


def most_captured(runner: Runner) -> int:
    """Return the most tokens that a captured graph takes."""
    return int(runner.compilation_config.max_cudagraph_capture_size or 0)


def is_v2(runner: Runner) -> bool:
    """Say whether a runner is vLLM's second model runner."""
    return hasattr(runner, "req_states")


def with_lengths(common: Any, **changes: Any) -> Any:
    """Return attention's metadata with other lengths; copies made of the old ones are made anew."""
    stale = ("_seq_lens_cpu", "_num_computed_tokens_cpu")  # of versions up to 0.29
    again = {one.name: None for one in fields(common) if one.name in stale}
    return replace(common, **again, **changes)


def settle_platform() -> None:
    """Let a trace take what CPU this is for a constant, which it asks for in each activation.

    The answer is a named tuple of the standard library that torch 2.11 cannot trace once it has
    been asked for before.
    """
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        found = current_platform.get_cpu_architecture()
        type(current_platform).get_cpu_architecture = classmethod(lambda cls: found)


def is_rocm() -> bool:
    """Say whether what calls itself CUDA is a GPU by AMD."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_rocm())
