"""Everything that interv uses of vLLM's internals: a new vLLM is met by changing this folder.

Nothing here imports vLLM before it is asked for.
"""

from __future__ import annotations

import logging

from interv.runtime.compat.classes import (
    SERVER as SERVER,
    beam_search_classes as beam_search_classes,
    block_keys_module as block_keys_module,
    compilation_config_class as compilation_config_class,
    engine_args_class as engine_args_class,
    engine_core_class as engine_core_class,
    engine_core_module as engine_core_module,
    engine_processes_class as engine_processes_class,
    input_processor_class as input_processor_class,
    joint_collector_class as joint_collector_class,
    json_check as json_check,
    kv_cache_config_class as kv_cache_config_class,
    kv_cache_manager_class as kv_cache_manager_class,
    output_processor_classes as output_processor_classes,
    plain_adapter_wrapper as plain_adapter_wrapper,
    scheduler_class as scheduler_class,
    serving_class as serving_class,
    worker_wrapper_class as worker_wrapper_class,
)
from interv.runtime.compat.configuration import (
    VllmConfig as VllmConfig,
    compile_trace as compile_trace,
    drafted_tokens as drafted_tokens,
    dtype as dtype,
    encoder as encoder,
    has_stock_compiler as has_stock_compiler,
    is_compiled as is_compiled,
    largest as largest,
    model_name as model_name,
    norm_rounding as norm_rounding,
    seed as seed,
    stop_s as stop_s,
    text_config as text_config,
    trace_without_compiling as trace_without_compiling,
)
from interv.runtime.compat.requests import (
    add_output as add_output,
    bad_request as bad_request,
    end_failed as end_failed,
    has_finished as has_finished,
    is_stop as is_stop,
)
from interv.runtime.compat.version import (
    NEWEST as NEWEST,
    OLDEST as OLDEST,
    check_version as check_version,
    vllm_version as vllm_version,
)
from interv.runtime.compat.worker import (
    Runner as Runner,
    Worker as Worker,
    adapter_wrappers as adapter_wrappers,
    attention_layers as attention_layers,
    attention_name as attention_name,
    blanks_all as blanks_all,
    captures_attention as captures_attention,
    full_attention_kinds as full_attention_kinds,
    is_backbone as is_backbone,
    is_first_of_tensor_parallel as is_first_of_tensor_parallel,
    is_first_worker as is_first_worker,
    is_rocm as is_rocm,
    is_v2 as is_v2,
    keepers as keepers,
    most_captured as most_captured,
    owned_layers as owned_layers,
    pipeline_stage as pipeline_stage,
    replace_attention as replace_attention,
    started as started,
)

log = logging.getLogger("vllm.interv")
