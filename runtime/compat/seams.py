"""The seams: every name of vLLM that interv relies on, as data.

A seam is something that interv has to be able to do in one of vLLM's processes. It lists the ways
in which versions of vLLM let it be done, newest first; a way is the names that it takes, and a
version has the way if it has all of them. Nothing here imports vLLM: a table of names, made from
the packages of each version, is held against this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Process: TypeAlias = Literal["any", "frontend", "scheduler", "worker"]
Need: TypeAlias = Literal["interv", "kv", "http"]


@dataclass(frozen=True, slots=True)
class Name:
    """One name of vLLM: `package.module:Class.member`.

    An `attribute` is assigned in a method or is a field: the class itself does not show it.
    """

    path: str
    attribute: bool = False


@dataclass(frozen=True, slots=True)
class Seam:
    """What interv has to be able to do, and the ways in which versions of vLLM let it.

    `needed_by` says what is refused where no way is there: everything, KV policies, or what a
    server does over HTTP.
    """

    title: str
    process: Process
    needed_by: Need
    candidates: tuple[tuple[Name, ...], ...]


def _one(title: str, process: Process, *paths: str, needed_by: Need = "interv") -> Seam:
    """Return a seam with one way; a path that ends in `=` is an attribute."""
    return Seam(title, process, needed_by, (_names(*paths),))


def _names(*paths: str) -> tuple[Name, ...]:
    return tuple(Name(one.removesuffix("="), one.endswith("=")) for one in paths)


_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
_CORE = "vllm.v1.engine.core:EngineCore"
_MANAGER = "vllm.v1.core.kv_cache_manager:KVCacheManager"
_BLOCKS = "vllm.v1.core.kv_cache_utils"
_ARGS = "vllm.engine.arg_utils:EngineArgs"

SEAMS: tuple[Seam, ...] = (
    _one(
        "arguments",
        "any",
        f"{_ARGS}.add_cli_args",
        f"{_ARGS}.from_cli_args",
        f"{_ARGS}.create_engine_config",
        f"{_ARGS}.additional_config",
    ),
    _one("requests", "frontend", "vllm.v1.engine.input_processor:InputProcessor.process_inputs"),
    _one(
        "answers",
        "frontend",
        "vllm.v1.engine.output_processor:OutputProcessor.add_request",
        "vllm.v1.engine.output_processor:OutputProcessor.process_outputs",
        "vllm.v1.engine.output_processor:RequestState.make_request_output",
    ),
    _one(
        "ends of engines",
        "frontend",
        "vllm.v1.engine.utils:CoreEngineProcManager.__init__",
        "vllm.v1.engine.utils:CoreEngineProcManager.shutdown",
        "vllm.v1.engine.utils:CoreEngineProcManager._finalizer=",
    ),
    Seam(
        "a request may wait",
        "scheduler",
        "interv",
        (
            _names(f"{_SCHEDULER}._handle_blocked_waiting_request"),
            _names(
                f"{_SCHEDULER}._select_waiting_queue_for_scheduling",
                f"{_SCHEDULER}._is_blocked_waiting_status",
                f"{_SCHEDULER}._try_promote_blocked_waiting_request",
            ),
        ),
    ),
    _one(
        "requests end",
        "scheduler",
        f"{_SCHEDULER}._free_request",
        f"{_SCHEDULER}.update_from_output",
        f"{_CORE}.step",
        f"{_CORE}.step_with_batch_queue",
        f"{_CORE}.abort_requests",
        f"{_CORE}.shutdown",
    ),
    _one(
        "clean blocks",
        "scheduler",
        f"{_SCHEDULER}._get_new_block_ids_to_zero",
        f"{_MANAGER}.allocate_slots",
        "vllm.v1.kv_cache_interface:KVCacheConfig.needs_kv_cache_zeroing",
        "vllm.v1.engine.core:get_kv_cache_configs",
    ),
    Seam(
        "a chunk may end early",
        "scheduler",
        "kv",
        (
            _names(f"{_SCHEDULER}._reserve_prefill_lookahead"),
            _names(
                f"{_SCHEDULER}._mamba_block_aligned_split",
                f"{_SCHEDULER}.need_mamba_block_aligned_split=",
            ),
        ),
    ),
    _one(
        "keys of blocks",
        "scheduler",
        f"{_CORE}.preprocess_add_request",
        f"{_CORE}.request_block_hasher=",
        f"{_BLOCKS}:_gen_prompt_embeds_extra_hash_keys",
        f"{_BLOCKS}:generate_block_hash_extra_keys",
    ),
    _one(
        "hits of the prefix cache",
        "scheduler",
        f"{_MANAGER}.get_computed_blocks",
        f"{_MANAGER}.coordinator=",
        "vllm.v1.core.kv_cache_coordinator:KVCacheCoordinator.find_longest_cache_hit",
    ),
    _one("the model's graph", "worker", "vllm.config.compilation:CompilationConfig.init_backend"),
    _one("workers", "worker", "vllm.v1.worker.worker_base:WorkerWrapperBase.init_device"),
    Seam(
        "the server",
        "frontend",
        "http",
        (
            _names("vllm.entrypoints.launchers.api_server.entry:build_app"),
            _names("vllm.entrypoints.openai.api_server:build_app"),
        ),
    ),
    Seam(
        "length of a new request's prompt",
        "worker",
        "kv",
        (
            _names("vllm.v1.core.sched.output:NewRequestData.prompt_len"),
            _names(
                "vllm.v1.core.sched.output:NewRequestData.prompt_token_ids=",
                "vllm.v1.core.sched.output:NewRequestData.prompt_embeds=",
            ),
        ),
    ),
)
