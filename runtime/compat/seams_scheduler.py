"""What interv relies on in the process of the engine's core."""

from __future__ import annotations

from interv.runtime.compat.seam import Seam, names, seam

_SCHEDULER, _CORE, _REQUEST = "v1.core.sched.scheduler", "v1.engine.core", "v1.request"
_MANAGER, _COORDINATOR = "v1.core.kv_cache_manager", "v1.core.kv_cache_coordinator"
_GROUP, _LAYOUT = "v1.core.single_type_kv_cache_manager", "v1.kv_cache_interface"

WAITING = seam(
    "a request may wait",
    "scheduler",
    names(_SCHEDULER, "Scheduler._handle_blocked_waiting_request"),
    names(
        _SCHEDULER,
        "Scheduler._select_waiting_queue_for_scheduling",
        "Scheduler._is_blocked_waiting_status",
        "Scheduler._try_promote_blocked_waiting_request",
    ),
)
# A version that asks for the base class of attention notes the blocks of all its kinds.
NEW_BLOCKS = seam(
    "which blocks are new",
    "scheduler",
    names(_GROUP, "AttentionSpec", "SingleTypeKVCacheManager.take_new_block_ids"),
    names(
        _GROUP,
        "SingleTypeKVCacheManager.take_new_block_ids",
        "SingleTypeKVCacheManager._record_new_block_ids=",
        "SingleTypeKVCacheManager.kv_cache_spec=",
    ),
)

SCHEDULER: tuple[Seam, ...] = (
    WAITING,
    seam(
        "the scheduler's requests",
        "scheduler",
        names(
            _SCHEDULER,
            "Scheduler.__init__",
            "Scheduler._free_request",
            "Scheduler.finish_requests",
            "Scheduler.update_from_output",
            "Scheduler.requests=",
            "Scheduler.running=",
            "Scheduler.current_step=",
            "Scheduler.vllm_config=",
            "Scheduler.kv_cache_manager=",
            "Scheduler.kv_cache_config=",
        )
        + names("v1.core.sched.interface", "SchedulerInterface.has_unfinished_requests"),
    ),
    seam(
        "one request",
        "scheduler",
        names(
            _REQUEST,
            "Request.is_finished",
            "Request.get_finished_reason",
            "Request.take_events",
            "Request.num_tokens",
            "Request.num_prompt_tokens=",
            "Request.prompt_token_ids=",
            "Request.all_token_ids=",
            "Request.sampling_params=",
            "Request.pooling_params=",
            "Request.client_index=",
            "Request.trace_headers=",
            "RequestStatus.FINISHED_ERROR",
            "RequestStatus.FINISHED_ABORTED",
        ),
    ),
    seam(
        "outputs of the core",
        "scheduler",
        names(
            "v1.engine",
            "EngineCoreOutput.finish_reason=",
            "EngineCoreOutput.events=",
            "EngineCoreOutput.kv_transfer_params=",
            "EngineCoreOutput.trace_headers=",
            "EngineCoreOutput.pooling_output=",
            "EngineCoreOutputs.outputs=",
            "FinishReason.STOP",
            "FinishReason.ABORT",
        ),
    ),
    seam(
        "steps of the core",
        "scheduler",
        names(
            _CORE,
            "EngineCore.preprocess_add_request",
            "EngineCore.step",
            "EngineCore.step_with_batch_queue",
            "EngineCore.abort_requests",
            "EngineCore.shutdown",
            "EngineCore.scheduler=",
            "EngineCore.model_executor=",
            "EngineCore.request_block_hasher=",
            "EngineCore.vllm_config=",
        )
        + names("v1.executor.abstract", "Executor.collective_rpc"),
    ),
    seam(
        "what a step schedules",
        "any",
        names(
            "v1.core.sched.output",
            "SchedulerOutput.scheduled_new_reqs=",
            "SchedulerOutput.scheduled_cached_reqs=",
            "SchedulerOutput.finished_req_ids=",
            "SchedulerOutput.new_block_ids_to_zero=",
            "SchedulerOutput.preempted_req_ids=",
            "NewRequestData.req_id=",
            "NewRequestData.sampling_params=",
            "NewRequestData.num_computed_tokens=",
            "NewRequestData.prefill_token_ids=",
            "CachedRequestData.req_ids=",
            "CachedRequestData.num_computed_tokens=",
            "CachedRequestData.resumed_req_ids=",
        ),
    ),
    seam(
        "keys of blocks",
        "scheduler",
        names(
            "v1.core.kv_cache_utils",
            "_gen_prompt_embeds_extra_hash_keys",
            "generate_block_hash_extra_keys",
        ),
    ),
    seam(
        "hits of the prefix cache",
        "scheduler",
        names(
            _MANAGER,
            "KVCacheManager.get_computed_blocks",
            "KVCacheManager.get_block_ids",
            "KVCacheManager.evict_blocks",
            "KVCacheManager.coordinator=",
        )
        + names(
            _COORDINATOR,
            "KVCacheCoordinator.find_longest_cache_hit",
            "KVCacheCoordinator.single_type_managers=",
        )
        + names(_GROUP, "SingleTypeKVCacheManager.block_size="),
    ),
    seam(
        "clean blocks",
        "scheduler",
        names(_SCHEDULER, "Scheduler._get_new_block_ids_to_zero")
        + names(_MANAGER, "KVCacheManager.allocate_slots", "KVCacheBlocks.get_block_ids")
        + names(_CORE, "get_kv_cache_configs")
        + names(
            _LAYOUT,
            "AttentionSpec",
            "KVCacheConfig.needs_kv_cache_zeroing",
            "KVCacheConfig.has_mamba_layers",
            "KVCacheConfig.kv_cache_groups=",
            "KVCacheConfig.num_blocks=",
            "KVCacheGroupSpec.layer_names=",
            "KVCacheGroupSpec.kv_cache_spec=",
            "UniformTypeKVCacheSpecs.kv_cache_specs=",
        ),
    ),
    NEW_BLOCKS,
)
