"""What KV policies rely on beyond what edits do."""

from __future__ import annotations

from interv.runtime.compat.seam import Name, Seam, names, seam

_SCHEDULER, _GROUP = "v1.core.sched.scheduler", "v1.core.single_type_kv_cache_manager"
_LAYOUT, _METADATA = "v1.kv_cache_interface", "v1.attention.backend"
_FIRST, _SECOND = "v1.worker.gpu_model_runner", "v1.worker.gpu.model_runner"
_BATCH, _NEW = "v1.worker.gpu_input_batch", "v1.core.sched.output"

CHUNKS = seam(
    "a chunk may end early",
    "scheduler",
    names(_SCHEDULER, "Scheduler._reserve_prefill_lookahead"),
    names(
        _SCHEDULER,
        "Scheduler._mamba_block_aligned_split",
        "Scheduler.need_mamba_block_aligned_split=",
    ),
    needed_by="kv",
)
PROMPT = seam(
    "the length of a new request's prompt",
    "worker",
    names(_NEW, "NewRequestData.prompt_len"),
    names(_NEW, "NewRequestData.prompt_token_ids=", "NewRequestData.prompt_embeds="),
    needed_by="kv",
)


def _backend(module: str, impl: str, builder: str, backend: str, member: str) -> tuple[Name, ...]:
    own = names("v1.attention.backends.registry", f"AttentionBackendEnum.{member}")
    module = f"v1.attention.backends.{module}"
    attends = (f"{impl}.forward", f"{impl}.do_kv_cache_update")
    return own + names(module, *attends, f"{builder}.build", f"{backend}.get_impl_cls")


KV: tuple[Seam, ...] = (
    CHUNKS,
    PROMPT,
    seam(
        "specs of caches",
        "any",
        names(
            _LAYOUT,
            "FullAttentionSpec.merge",
            "FullAttentionSpec.sliding_window=",
            "KVCacheSpec.max_num_blocks_per_req",
        )
        + names(
            "v1.kv_cache_spec_registry",
            "KVCacheSpecRegistry._ensure_registered",
            "KVCacheSpecRegistry.register",
        ),
        needed_by="kv",
    ),
    seam(
        "blocks of compressed requests",
        "scheduler",
        names(
            _GROUP,
            "FullAttentionManager",
            "SingleTypeKVCacheManager.get_num_blocks_to_allocate",
            "SingleTypeKVCacheManager.allocate_new_blocks",
            "SingleTypeKVCacheManager.cache_blocks",
            "SingleTypeKVCacheManager.pop_blocks_for_free",
            "SingleTypeKVCacheManager.req_to_blocks=",
            "SingleTypeKVCacheManager.block_pool=",
        )
        + names("v1.core.block_pool", "BlockPool.free_blocks"),
        needed_by="kv",
    ),
    seam(
        "attention's backends",
        "worker",
        names("v1.attention.backends.registry", "register_backend")
        + names("v1.attention.selector", "_cached_get_attn_backend")
        + _backend(
            "cpu_attn",
            "CPUAttentionBackendImpl",
            "CPUAttentionMetadataBuilder",
            "CPUAttentionBackend",
            "CPU_ATTN",
        )
        + _backend(
            "flash_attn",
            "FlashAttentionImpl",
            "FlashAttentionMetadataBuilder",
            "FlashAttentionBackend",
            "FLASH_ATTN",
        )
        + _backend(
            "triton_attn",
            "TritonAttentionImpl",
            "TritonAttentionMetadataBuilder",
            "TritonAttentionBackend",
            "TRITON_ATTN",
        ),
        needed_by="kv",
    ),
    seam(
        "attention's metadata",
        "worker",
        names(
            _METADATA,
            "CommonAttentionMetadata.seq_lens=",
            "CommonAttentionMetadata.max_seq_len=",
            "CommonAttentionMetadata.seq_lens_cpu_upper_bound=",
            "CommonAttentionMetadata.positions=",
            "CommonAttentionMetadata.query_start_loc_cpu=",
            "CommonAttentionMetadata.block_table_tensor=",
            "CommonAttentionMetadata.slot_mapping=",
        ),
        needed_by="kv",
    ),
    seam(
        "caches of the first runner",
        "worker",
        names(
            _FIRST,
            "GPUModelRunner.get_kv_cache_spec",
            "GPUModelRunner.initialize_kv_cache",
            "GPUModelRunner.max_num_reqs=",
            "GPUModelRunner.attn_groups=",
        )
        + names(
            _BATCH,
            "InputBatch.block_table=",
            "CachedRequestState.block_ids=",
        )
        + names("v1.worker.block_table", "BlockTable.add_row")
        + names("v1.worker.utils", "AttentionGroup.metadata_builders="),
        needed_by="kv",
    ),
    seam(
        "caches of the second runner",
        "worker",
        names(
            _SECOND,
            "GPUModelRunner.get_kv_cache_spec",
            "GPUModelRunner.initialize_kv_cache",
            "GPUModelRunner.block_tables=",
        )
        + names("v1.worker.gpu.block_table", "BlockTables.block_tables=", "BlockTables.num_blocks=")
        + names("v1.worker.gpu.input_batch", "InputBatch.num_computed_tokens_np="),
        needed_by="kv",
    ),
    seam(
        "layers of attention",
        "worker",
        names(
            "model_executor.layers.attention.attention",
            "Attention.get_attn_backend",
            "Attention.impl=",
            "Attention.kv_cache=",
            "Attention.kv_sharing_target_layer_name=",
        )
        + names("config.compilation", "CUDAGraphMode.has_full_cudagraphs"),
        needed_by="kv",
    ),
    seam(
        "what a policy is refused with",
        "frontend",
        names("config.model", "ModelConfig.use_mla", "ModelConfig.runner_type=")
        + names("config.cache", "CacheConfig.cache_dtype=", "CacheConfig.kv_offloading_size=")
        + names("config.parallel", "ParallelConfig.decode_context_parallel_size="),
        needed_by="kv",
    ),
)
