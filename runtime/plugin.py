"""The `vllm.general_plugins` entry point: nine seams, each inert without `--intervention`.

1. the command line and the engine's arguments (this file): compile documents, carry the bundle;
2. the compiler of the model's graph (`backend.py`): splice;
3. the worker (`attach.py`): tables, and the tokens of each step;
4. admission (`requests.py`, `admission.py`): a request's expression is resolved or refused;
5. the scheduler (`gate.py`): a request that finds no slot waits;
6. the prefix cache (`prefix.py`): blocks that were edited have keys of their own;
7. the metrics (`metrics.py`): the counts of edited rows;
8. a KV policy (`kv/`): the scheduler's chunks and blocks, the worker's attention and cache;
9. answers (`ending.py`, `served.py`): what a request tells when it ends, on all of vLLM's routes;
10. the end (`stopping.py`): of requests whose rows must be safe, and of engines;
11. what is not finite (`written.py`, `blank.py`, `finite.py`, `failure.py`): blocks that an edit
    wrote are blanked before they are used again, and requests whose stream is lost end.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from interv.errors import IntervError
from interv.load import load_documents
from interv.runtime import compat, stopping
from interv.runtime.arm import arm, compile_for
from interv.runtime.beams import beam_search
from interv.runtime.config import (
    DEFAULT_SLOTS,
    KEY,
    InterventionConfig,
    counters_path,
    options_of,
)
from interv.runtime.metrics import add_to_joint, expose
from interv.runtime.requests import check_model, process_inputs
from interv.runtime.served import build_app

_DONE = "_interv_seam"
_FROM_COMMAND_LINE = "_interv_from_command_line"


def register() -> None:
    """Install the seams in this process; calling it again changes nothing."""
    from interv.runtime import ending, failure, gate
    from interv.runtime.attach import after_init_device
    from interv.runtime.backend import init_backend
    from interv.runtime.gate import free_request, handle_waiting
    from interv.runtime.kv.schedule import local_hit, reserve_prefill_lookahead
    from interv.runtime.limit import get_computed_blocks
    from interv.runtime.prefix import keys_of_block, preprocess_add_request
    from interv.runtime.written import (
        allocate_slots,
        kv_cache_configs,
        needs_kv_cache_zeroing,
        new_block_ids_to_zero,
    )

    arguments = compat.engine_args_class()
    _wrap(arguments, "add_cli_args", _add_cli_args, kind=staticmethod)
    _wrap(arguments, "from_cli_args", _from_cli_args, kind=classmethod)
    _wrap(arguments, "create_engine_config", _create_engine_config)
    _wrap(compat.compilation_config_class(), "init_backend", init_backend)
    _wrap(compat.worker_wrapper_class(), "init_device", after_init_device)
    _wrap(compat.input_processor_class(), "process_inputs", process_inputs)
    scheduler = compat.scheduler_class()
    _wrap(scheduler, "_handle_blocked_waiting_request", handle_waiting)
    _wrap(scheduler, "_free_request", free_request)
    _wrap(scheduler, "update_from_output", failure.update_from_output)
    _wrap(scheduler, "update_from_output", gate.update_from_output)
    _wrap(scheduler, "_reserve_prefill_lookahead", reserve_prefill_lookahead)
    _wrap(scheduler, "_get_local_prefix_cache_hit", local_hit)
    core = compat.engine_core_class()
    _wrap(core, "preprocess_add_request", preprocess_add_request)
    for name in ("step", "step_with_batch_queue"):
        _wrap(core, name, stopping.step)
    _wrap(core, "abort_requests", stopping.abort_requests)
    _wrap(core, "shutdown", stopping.shutdown)
    processes = compat.engine_processes_class()
    _wrap(processes, "__init__", stopping.start_engines)
    _wrap(processes, "shutdown", stopping.stop_engines)
    processor, state = compat.output_processor_classes()
    _wrap(processor, "add_request", ending.add_request)
    _wrap(processor, "process_outputs", ending.process_outputs)
    _wrap(processor, "process_outputs", failure.process_outputs)
    _wrap(state, "make_request_output", ending.make_request_output)
    _wrap(compat.kv_cache_manager_class(), "get_computed_blocks", get_computed_blocks)
    _wrap(compat.kv_cache_manager_class(), "allocate_slots", allocate_slots)
    caches = compat.kv_cache_config_class()
    _wrap(caches, "needs_kv_cache_zeroing", needs_kv_cache_zeroing, kind=property)
    _wrap(compat.engine_core_module(), "get_kv_cache_configs", kv_cache_configs)
    _wrap(scheduler, "_get_new_block_ids_to_zero", new_block_ids_to_zero)
    _wrap(compat.block_keys_module(), "_gen_prompt_embeds_extra_hash_keys", keys_of_block)
    _wrap(compat.joint_collector_class(), "__init__", add_to_joint)


def _wrap(owner: Any, name: str, wrapper: Any, kind: Any = None) -> None:
    """Replace a method by `wrapper(original, …)`, once; another wrapper goes around this one."""
    original = getattr(owner, name)
    # A class method is wrapped below its binding, so that subclasses still bind to themselves.
    inner = original.__func__ if kind is classmethod else getattr(original, "fget", original)
    done: tuple[Any, ...] = getattr(inner, _DONE, ())
    if wrapper in done:
        return

    @functools.wraps(inner)
    def method(*args: Any, **kwargs: Any) -> Any:
        return wrapper(inner, *args, **kwargs)

    setattr(method, _DONE, (*done, wrapper))
    setattr(owner, name, kind(method) if kind else method)


def _add_cli_args(original: Any, parser: Any) -> Any:
    parser = original(parser)
    group = parser.add_argument_group(
        title="interv", description="Interventions on the residual stream, compiled into the graph."
    )
    group.add_argument(
        "--intervention",
        action="append",
        metavar="FILE",
        help="An .interv document (or its JSON or YAML form). May be given more than once; the "
        "document's 'default' says which program applies to requests.",
    )
    group.add_argument(
        "--intervention-slots",
        type=int,
        default=DEFAULT_SLOTS,
        metavar="N",
        help="How many different configurations may be in flight at once; requests beyond wait.",
    )
    group.add_argument(
        "--intervention-inline",
        action="store_true",
        help="Let requests bring whole programs of their own, over the vectors and sites of the "
        "documents. Without it they can name the documents' programs only.",
    )
    group.add_argument(
        "--intervention-absorb-norm",
        action="store_true",
        help="Join each update with the fused add-RMSNorm that follows it, where the graph has "
        "one, so that an edit adds no launch. Unedited answers may then differ in last bits.",
    )
    return parser


def _from_cli_args(original: Any, cls: Any, args: Any) -> Any:
    made = original(cls, args)
    if files := getattr(args, "intervention", None):
        whole = made.additional_config or {}
        if KEY not in whole:
            with _exit_on_error():
                load_documents(files)
            options = {
                "files": list(files),
                "slots": args.intervention_slots,
                "inline": args.intervention_inline,
                "absorb_norm": args.intervention_absorb_norm,
                "counters": counters_path(),
            }
            # The other processes of a server read these arguments too, some before plugins are
            # loaded there; and all of them count in one place.
            args.additional_config = whole = {**whole, KEY: options}
        made.additional_config = whole
        setattr(made, _FROM_COMMAND_LINE, True)
    return made


def _create_engine_config(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    _guard_frontend()
    whole = self.additional_config
    if not (isinstance(whole, dict) and KEY in whole):
        return original(self, *args, **kwargs)
    with _exit_on_error(getattr(self, _FROM_COMMAND_LINE, False)):
        compat.check_version()
        options = options_of(whole)
        assert options is not None
        documents = load_documents(options["files"])
    try:
        self.additional_config = {k: v for k, v in whole.items() if k != KEY}
        config = original(self, *args, **kwargs)
    finally:
        self.additional_config = whole
    with _exit_on_error(getattr(self, _FROM_COMMAND_LINE, False)):
        arm(config, compile_for(config, documents, options), options)
    if isinstance(config.additional_config, InterventionConfig):
        expose(config.additional_config)
        stopping.end_on_sigterm(config.additional_config)
    return config


def _guard_frontend() -> None:
    """Look at what comes in beside `process_inputs`, in a process that has a server or an `LLM`."""
    if compat.SERVER in sys.modules:
        _wrap(compat.serving_class(), "_check_model", check_model)
        _wrap(sys.modules[compat.SERVER], "build_app", build_app)
    for found in compat.beam_search_classes():
        _wrap(found, "beam_search", beam_search)


class _exit_on_error:
    """On the command line, show a user's mistake as a diagnostic and exit; elsewhere raise it."""

    def __init__(self, active: bool = True) -> None:
        self._active = active

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._active and isinstance(error, IntervError):
            print(error, file=sys.stderr, flush=True)
            sys.exit(1)
