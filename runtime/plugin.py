"""The `vllm.general_plugins` entry point: the list of seams, each inert without `--intervention`.

A seam is a method of vLLM and the function that is called around it. They stand by the process that
calls them, with the file that they lie in; in a process that has several roles all of them do. On a
vLLM that lacks one of them none is wrapped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, TypeAlias

from interv.errors import IntervError
from interv.runtime import compat
from interv.runtime.wrap import wrap_seam

# Whose method, its name, our function, and what else it is but a method.
Seam: TypeAlias = tuple[Any, str, Any] | tuple[Any, str, Any, Any]


def register() -> None:
    """Install the seams in this process; calling it again changes nothing.

    All that interv needs of vLLM is looked at before anything is wrapped.
    """
    error = compat.fault()
    if error is None:
        try:
            seams = [*_frontend(), *_scheduler(), *_worker()]
        except Exception as why:  # whatever a vLLM does that nobody has seen
            error = compat.give_up(why)
    if error is not None:
        _refuse(error)
        return
    for seam in seams:
        wrap_seam(*seam)


def _refuse(error: IntervError) -> None:
    """Have those told who ask for interventions, and nobody else disturbed."""
    from interv.runtime.frontend import unsupported

    lacks = compat.lacks("interv")
    why = f"it lacks {lacks}" if lacks else error.notes[0] if error.notes else error.helps[0]
    compat.log.warning("interv does nothing here: %s, %s", error.message, why)
    arguments = compat.arguments_class()
    if arguments is None:
        unsupported.refuse_command(sys.argv, error)
        return
    for seam in unsupported.refusing_seams(arguments):
        wrap_seam(*seam)


def _frontend() -> Iterator[Seam]:
    """Yield what processes call that take requests.

    A server's own routes and beam search follow once their modules are there: `command_line.py`.
    """
    from interv.runtime.frontend import command_line, held_outputs, metrics, requests, stopping

    arguments = compat.engine_args_class()
    yield arguments, "add_cli_args", command_line.add_cli_args, staticmethod
    yield arguments, "from_cli_args", command_line.from_cli_args, classmethod
    yield arguments, "create_engine_config", command_line.create_engine_config
    yield compat.input_processor_class(), "process_inputs", requests.process_inputs
    processor, state = compat.output_processor_classes()
    yield processor, "add_request", held_outputs.add_request
    yield processor, "process_outputs", held_outputs.process_outputs
    yield processor, "process_outputs", held_outputs.tell_failures
    yield state, "make_request_output", held_outputs.make_request_output
    yield compat.joint_collector_class(), "__init__", metrics.add_to_joint
    processes = compat.engine_processes_class()
    yield processes, "__init__", stopping.start_engines
    yield processes, "shutdown", stopping.stop_engines


def _scheduler() -> Iterator[Seam]:
    """Yield what the engine core calls."""
    from interv.runtime.kv.scheduler import schedule
    from interv.runtime.scheduler import (
        block_keys,
        cached_prefix,
        clean_blocks,
        ended,
        failed,
        waiting,
    )

    scheduler = compat.scheduler_class()
    yield scheduler, "__init__", clean_blocks.init
    yield from compat.waiting_seams(waiting.admits)
    yield scheduler, "_free_request", waiting.free_request
    yield scheduler, "update_from_output", failed.update_from_output
    yield scheduler, "update_from_output", waiting.update_from_output
    yield scheduler, "_get_new_block_ids_to_zero", clean_blocks.new_block_ids_to_zero
    if not compat.lacks("kv"):
        yield scheduler, "__init__", schedule.init
        yield from compat.chunk_seams(schedule.of_scheduler)
    core = compat.engine_core_class()
    yield core, "preprocess_add_request", block_keys.preprocess_add_request
    for name in ("step", "step_with_batch_queue"):
        yield core, name, ended.step
    yield core, "abort_requests", ended.abort_requests
    yield core, "shutdown", ended.shutdown
    manager, caches = compat.kv_cache_manager_class(), compat.kv_cache_config_class()
    yield manager, "get_computed_blocks", cached_prefix.get_computed_blocks
    yield manager, "allocate_slots", clean_blocks.allocate_slots
    yield caches, "needs_kv_cache_zeroing", clean_blocks.needs_kv_cache_zeroing, property
    yield compat.engine_core_module(), "get_kv_cache_configs", clean_blocks.kv_cache_configs
    keys = compat.block_keys_module()
    yield keys, "_gen_prompt_embeds_extra_hash_keys", block_keys.keys_of_block


def _worker() -> Iterator[Seam]:
    """Yield what runs beside the model; a runner is hooked once it is there: `attach.py`."""
    from interv.runtime.worker import attach, compiler

    yield compat.compilation_config_class(), "init_backend", compiler.init_backend
    yield compat.worker_wrapper_class(), "init_device", attach.after_init_device
