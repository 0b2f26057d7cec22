"""What interv relies on in processes that take requests."""

from __future__ import annotations

from interv.runtime.compat.seam import Seam, names, seam

_CONFIG, _PROCESSOR = "config.compilation", "v1.engine.output_processor"
_BEAMS, _SERVING = "entrypoints.generate.beam_search", "entrypoints.generate.base.serving"

# What asks for an intervention; where it is there, it can also be refused.
ARGUMENTS = seam(
    "arguments",
    "any",
    names(
        "engine.arg_utils",
        "EngineArgs.add_cli_args",
        "EngineArgs.from_cli_args",
        "EngineArgs.create_engine_config",
        "EngineArgs.additional_config=",
    ),
)
SERVER = seam(
    "the server's application",
    "frontend",
    names("entrypoints.launchers.api_server.entry", "build_app"),
    names("entrypoints.openai.api_server", "build_app"),
    needed_by="http",
)

FRONTEND: tuple[Seam, ...] = (
    ARGUMENTS,
    seam(
        "the configuration",
        "any",
        names(
            "config.vllm",
            "VllmConfig.additional_config=",
            "VllmConfig.kernel_config=",
            "VllmConfig.kv_transfer_config=",
        )
        + names("config.kernel", "KernelConfig.ir_op_priority=")
        + names("config.kernel", "IrOpPriorityConfig.fused_add_rms_norm=")
        + names("config.cache", "CacheConfig.kv_sharing_fast_prefill=")
        + names("config.scheduler", "SchedulerConfig.max_num_batched_tokens=")
        + names("config.scheduler", "SchedulerConfig.max_num_seqs="),
    ),
    seam(
        "how the model is compiled",
        "any",
        names(
            _CONFIG,
            "CompilationMode.NONE",
            "CompilationMode.STOCK_TORCH_COMPILE",
            "CompilationMode.DYNAMO_TRACE_ONCE",
            "CompilationConfig.mode=",
            "CompilationConfig.backend=",
            "CompilationConfig.pass_config=",
            "PassConfig.fuse_allreduce_rms=",
            "CompilationConfig.max_cudagraph_capture_size=",
        ),
    ),
    seam(
        "how engines are split",
        "any",
        names(
            "config.parallel",
            "ParallelConfig.use_ubatching",
            "ParallelConfig.data_parallel_index=",
            "ParallelConfig.data_parallel_rank=",
            "ParallelConfig.pipeline_parallel_size=",
            "ParallelConfig.tensor_parallel_size=",
            "ParallelConfig.prefill_context_parallel_size=",
        ),
    ),
    seam(
        "the model's facts",
        "any",
        names(
            "config.model",
            "ModelConfig.is_encoder_decoder",
            "ModelConfig.skip_tokenizer_init=",
            "ModelConfig.seed=",
            "ModelConfig.hf_text_config=",
            "ModelConfig.dtype=",
        )
        + names("tokenizers.registry", "cached_tokenizer_from_config"),
    ),
    seam(
        "requests",
        "frontend",
        names("v1.engine.input_processor", "InputProcessor.process_inputs")
        + names("sampling_params", "SamplingParams.extra_args=")
        + names("exceptions", "VLLMValidationError"),
    ),
    seam(
        "answers",
        "frontend",
        names(
            _PROCESSOR,
            "OutputProcessor.add_request",
            "OutputProcessor.process_outputs",
            "OutputProcessor._finish_request",
            "OutputProcessor.abort_requests",
            "OutputProcessor.request_states=",
            "OutputProcessor.external_req_ids=",
            "OutputProcessorOutput.request_outputs=",
            "OutputProcessorOutput.reqs_to_abort=",
            "RequestOutputCollector.put",
            "RequestState.make_request_output",
            "RequestState.external_req_id=",
            "RequestState.request_index=",
            "RequestState.streaming_input=",
            "RequestState.parent_req=",
            "RequestState.queue=",
            "EMPTY_CPU_TENSOR",
        )
        + names("v1.engine.parallel_sampling", "ParentRequest.n", "ParentRequest.child_requests="),
    ),
    seam(
        "beam search",
        "frontend",
        names(f"{_BEAMS}.offline", "BeamSearchOfflineMixin.beam_search")
        + names(f"{_BEAMS}.online", "BeamSearchOnlineMixin.beam_search"),
    ),
    seam(
        "the ends of engines",
        "frontend",
        names(
            "v1.engine.utils",
            "CoreEngineProcManager.__init__",
            "CoreEngineProcManager.shutdown",
            "CoreEngineProcManager._finalizer=",
        )
        + names("envs", "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS="),
    ),
    SERVER,
    seam(
        "bodies of requests",
        "frontend",
        names("entrypoints.serve.utils.api_utils", "validate_json_request")
        + names("entrypoints.serve.engine.serving", "BaseServing._check_model")
        + names(_SERVING, "GenerateBaseServing.engine_client=")
        + names("engine.protocol", "EngineClient.vllm_config=")
        + names("v1.engine.async_llm", "AsyncLLM.collective_rpc", "AsyncLLM.input_processor=")
        + names("entrypoints.openai.completion.protocol", "CompletionRequest.vllm_xargs=")
        + names("entrypoints.openai.completion.protocol", "CompletionRequest.use_beam_search=")
        + names("entrypoints.openai.chat_completion.protocol", "ChatCompletionRequest.vllm_xargs="),
        needed_by="http",
    ),
)
