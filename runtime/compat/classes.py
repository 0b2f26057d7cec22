"""The classes and modules of vLLM whose methods are wrapped."""

from __future__ import annotations

import sys
from typing import Any

from interv.runtime.compat.lookup import loaded
from interv.runtime.compat.seams_frontend import SERVER


def server_module() -> Any:
    """Return the module of the HTTP server, in the processes that have one; None elsewhere."""
    return loaded(SERVER)


def engine_args_class() -> Any:
    """Return the class that both the command line and `LLM` build their configuration with."""
    from vllm.engine.arg_utils import EngineArgs

    return EngineArgs


def arguments_class() -> Any:
    """Return that class where it may be missing, as on a vLLM that is not known; None then."""
    try:
        return engine_args_class()
    except Exception:  # whatever another version does
        return None


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


def engine_core_module() -> Any:
    """Return the module in which the engine decides on its caches."""
    from vllm.v1.engine import core

    return core


def engine_processes_class() -> Any:
    """Return the class that starts the processes of engines, and ends them."""
    from vllm.v1.engine.utils import CoreEngineProcManager

    return CoreEngineProcManager


def block_keys_module() -> Any:
    """Return the module that makes the hashes of cached blocks."""
    from vllm.v1.core import kv_cache_utils

    return kv_cache_utils


def kv_cache_manager_class() -> Any:
    """Return the class that looks up which blocks of a new request are cached."""
    from vllm.v1.core.kv_cache_manager import KVCacheManager

    return KVCacheManager


def kv_cache_config_class() -> Any:
    """Return what says how an engine's caches are laid out, in every process of it."""
    from vllm.v1.kv_cache_interface import KVCacheConfig

    return KVCacheConfig


def output_processor_classes() -> tuple[Any, Any]:
    """Return what makes answers of what the core sends, and what it keeps of each sample."""
    from vllm.v1.engine.output_processor import OutputProcessor, RequestState

    return OutputProcessor, RequestState


def serving_class() -> Any:
    """Return what every handler of a model's HTTP routes derives from."""
    from vllm.entrypoints.serve.engine.serving import BaseServing

    return BaseServing


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
    if server_module() is not None:
        from vllm.entrypoints.generate.beam_search.online import BeamSearchOnlineMixin

        found.append(BeamSearchOnlineMixin)
    return found


def joint_collector_class() -> Any:
    """Return what collects the metrics of several server processes, anew for every scrape."""
    from prometheus_client.multiprocess import MultiProcessCollector

    return MultiProcessCollector


def plain_adapter_wrapper() -> Any:
    """Return the class that computes LoRA in plain Python, which a trace must not see into."""
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    return PunicaWrapperCPU
