"""Everything that interv uses of vLLM's internals: a new vLLM is met by changing this folder.

Nothing here imports vLLM before it is asked for.
"""

from __future__ import annotations

from interv.runtime.compat.chunks import (
    ask_for_chunks as ask_for_chunks,
    chunk_seams as chunk_seams,
)
from interv.runtime.compat.classes import (
    arguments_class as arguments_class,
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
    server_module as server_module,
    serving_class as serving_class,
    worker_wrapper_class as worker_wrapper_class,
)
from interv.runtime.compat.configuration import (
    VllmConfig as VllmConfig,
    adapts_drafts as adapts_drafts,
    compile_trace as compile_trace,
    dtype as dtype,
    encoder as encoder,
    fuses_all_reduce as fuses_all_reduce,
    has_stock_compiler as has_stock_compiler,
    is_compiled as is_compiled,
    is_sequence_parallel as is_sequence_parallel,
    largest as largest,
    model_name as model_name,
    norm_rounding as norm_rounding,
    seed as seed,
    stop_s as stop_s,
    text_config as text_config,
    trace_without_compiling as trace_without_compiling,
)
from interv.runtime.compat.lookup import look as look, missing as missing
from interv.runtime.compat.new_blocks import (
    blanks_every_kind as blanks_every_kind,
    note_new_blocks as note_new_blocks,
)
from interv.runtime.compat.requests import (
    add_output as add_output,
    bad_request as bad_request,
    end_failed as end_failed,
    has_finished as has_finished,
    is_stop as is_stop,
    prompt_length as prompt_length,
)
from interv.runtime.compat.seam import Need as Need
from interv.runtime.compat.version import (
    NEWEST as NEWEST,
    OLDEST as OLDEST,
    check_arguments as check_arguments,
    check_number as check_number,
    check_server as check_server,
    check_version as check_version,
    fault as fault,
    give_up as give_up,
    is_newer as is_newer,
    lacks as lacks,
    log as log,
    tried as tried,
    vllm_version as vllm_version,
)
from interv.runtime.compat.waiting import waiting_seams as waiting_seams
from interv.runtime.compat.worker import (
    Runner as Runner,
    Worker as Worker,
    adapter_wrappers as adapter_wrappers,
    attention_layers as attention_layers,
    attention_name as attention_name,
    blanks_all as blanks_all,
    captures_attention as captures_attention,
    full_attention_kinds as full_attention_kinds,
    graph_passes_class as graph_passes_class,
    is_backbone as is_backbone,
    is_first_of_tensor_parallel as is_first_of_tensor_parallel,
    is_first_worker as is_first_worker,
    is_rocm as is_rocm,
    is_v2 as is_v2,
    keepers as keepers,
    layer_name as layer_name,
    layer_name_type as layer_name_type,
    most_captured as most_captured,
    owned_layers as owned_layers,
    pipeline_stage as pipeline_stage,
    replace_attention as replace_attention,
    settle_platform as settle_platform,
    with_lengths as with_lengths,
)
