"""What interv relies on beside the model."""

from __future__ import annotations

from interv.runtime.compat.seam import Seam, names, seam

_FIRST, _SECOND = "v1.worker.gpu_model_runner", "v1.worker.gpu.model_runner"
_BATCH, _PUNICA = "v1.worker.gpu_input_batch", "lora.punica_wrapper.punica_cpu"

WORKER: tuple[Seam, ...] = (
    seam(
        "the model's graph",
        "worker",
        names(
            "config.compilation",
            "CompilationConfig.init_backend",
            "CompilationConfig.inductor_compile_config=",
            "CompilationConfig.static_forward_context=",
        )
        + names("model_executor.layers.attention_layer_base", "AttentionLayerBase")
        + names("compilation.backends", "model_tag")
        + names("compilation.passes.pass_manager", "PostGradPassManager.__call__")
        + names("utils.torch_utils", "LayerName", "_USE_LAYERNAME"),
    ),
    seam(
        "workers",
        "worker",
        names(
            "v1.worker.worker_base",
            "WorkerWrapperBase.init_device",
            "WorkerWrapperBase.worker=",
            "WorkerWrapperBase.vllm_config=",
            "WorkerBase.compile_or_warm_up_model",
            "WorkerBase.shutdown",
        ),
    ),
    seam(
        "ranks of workers",
        "worker",
        names("distributed.parallel_state", "get_pp_group", "get_tp_group")
        + names("distributed.utils", "get_pp_indices"),
    ),
    seam(
        "the first runner",
        "worker",
        names(
            _FIRST,
            "GPUModelRunner._model_forward",
            "GPUModelRunner._update_states",
            "GPUModelRunner._dummy_run",
            "GPUModelRunner._zero_block_ids",
            "GPUModelRunner.execute_model",
            "GPUModelRunner.sample_tokens",
            "GPUModelRunner.positions=",
            "GPUModelRunner.input_ids=",
            "GPUModelRunner.query_start_loc=",
            "GPUModelRunner.requests=",
            "GPUModelRunner.input_batch=",
            "GPUModelRunner.compilation_config=",
            "GPUModelRunner.kv_cache_config=",
        )
        + names(
            _BATCH,
            "InputBatch.num_reqs",
            "InputBatch.req_ids=",
            "InputBatch.num_prompt_tokens=",
            "InputBatch.num_computed_tokens_cpu=",
            "InputBatch.token_ids_cpu=",
            "CachedRequestState.sampling_params=",
        ),
    ),
    seam(
        "the second runner",
        "worker",
        names(
            _SECOND,
            "GPUModelRunner.add_requests",
            "GPUModelRunner.prepare_inputs",
            "GPUModelRunner.execute_model",
            "GPUModelRunner.capture_model",
            "GPUModelRunner.sample_tokens",
            "GPUModelRunner.pool",
            "GPUModelRunner._dummy_run",
            "GPUModelRunner._init_kv_zero_meta",
            "GPUModelRunner.kv_block_zeroer=",
            "GPUModelRunner.execute_model_state=",
            "GPUModelRunner.req_states=",
            "ExecuteModelState.hidden_states=",
            "ExecuteModelState.aux_hidden_states=",
        )
        + names("v1.worker.utils", "KVBlockZeroer.zero_block_ids")
        + names("v1.worker.gpu.states", "RequestState.req_id_to_index=")
        + names("v1.worker.gpu.states", "RequestState.prompt_len=")
        + names(
            "v1.worker.gpu.input_batch",
            "InputBatch.num_reqs=",
            "InputBatch.req_ids=",
            "InputBatch.idx_mapping_np=",
            "InputBatch.positions=",
            "InputBatch.input_ids=",
            "InputBatch.query_start_loc_np=",
        ),
    ),
    seam(
        "what a runner answers",
        "worker",
        names("v1.outputs", "ModelRunnerOutput.req_id_to_index=")
        + names("v1.outputs", "AsyncModelRunnerOutput.get_output"),
    ),
    seam(
        "adapters in plain Python",
        "worker",
        names(
            _PUNICA,
            "PunicaWrapperCPU.add_lora_linear",
            "PunicaWrapperCPU.add_shrink",
            "PunicaWrapperCPU.add_expand",
            "PunicaWrapperCPU.add_lora_embedding",
        )
        + names("v1.worker.lora_model_runner_mixin", "LoRAModelRunnerMixin.load_lora_model")
        + names("v1.worker.lora_model_runner_mixin", "LoRAModelRunnerMixin.lora_manager=")
        + names("lora.worker_manager", "WorkerLoRAManager._adapter_manager=")
        + names("lora.model_manager", "LoRAModelManager.punica_wrapper_mapping="),
    ),
    seam(
        "the platform",
        "worker",
        names("platforms.interface", "Platform.get_cpu_architecture", "Platform.is_rocm"),
    ),
)
