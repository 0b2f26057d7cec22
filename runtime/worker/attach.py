"""Attach an engine's edits to the worker that runs the model: one hook a forward pass.

Both of vLLM's runners are told apart by what they have. Each hook reads the batch only after the
runner has settled its order, and takes positions and ids from the tensors that are really fed.
"""

from __future__ import annotations

import atexit
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from interv.runtime import compat
from interv.runtime.armed import log_armed
from interv.runtime.captures.deliveries import Deliveries
from interv.runtime.captures.staging import Captures, groups_of
from interv.runtime.choice import Choice, choice_in
from interv.runtime.config import InterventionConfig
from interv.runtime.counters import Counters, counters_of
from interv.runtime.worker.blanking import hook_blank
from interv.runtime.worker.engine import Engine, Step
from interv.runtime.worker.finite import Finite
from interv.runtime.worker.lora import attach_lora
from interv.runtime.worker.op import running
from interv.runtime.wrap import wrap
from interv.sinks.results import engine_folder


def after_init_device(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """Attach to the worker once it has a device and a runner; wraps `init_device`."""
    original(self, *args, **kwargs)
    carried = self.vllm_config.additional_config
    if not isinstance(carried, InterventionConfig):
        return
    if carried.bundle.spliced:
        compat.settle_platform()
        attach(self.worker, carried)
    if carried.bundle.kv is not None:
        from interv.runtime.kv.worker.worker import attach_kv

        attach_kv(self.worker, carried.bundle.kv)
    device = self.worker.model_runner.device
    log_armed(carried, self.vllm_config, device, _max_tokens(self.vllm_config))


def attach(worker: compat.Worker, carried: InterventionConfig) -> Engine:
    """Make the engine of a worker and hook it into the worker's runner."""
    runner, config = worker.model_runner, worker.vllm_config
    # Every rank of a tensor-parallel group edits the same rows: one of them counts for all.
    first = compat.is_first_of_tensor_parallel()
    if first:
        counters = counters_of(carried, config)
    else:
        counters = Counters(None, carried.bundle, carried.seats)
    # Every worker is asked; one that captures nothing has nothing to do.
    worker.interv_ended = worker.interv_mark = _nothing
    worker.interv_held = _none
    shape = (runner.device, config.model_config.dtype, _max_tokens(config))
    captures = _captures(worker, carried, counters, *shape) if first else None
    layers = compat.owned_layers(config, carried.bundle.num_layers)
    drafted = compat.drafted_tokens(config)
    engine = Engine(carried.bundle, *shape, carried.slots, counters, captures, layers, drafted)
    runner.interv = engine
    hook_blank(runner)
    if compat.is_v2(runner):
        _hook_v2(runner, engine)
    else:
        _hook_v1(runner, engine)
    _hook_results(runner, engine)
    _hook_warm_up(worker, engine)
    attach_lora(runner, engine)
    return engine


def _nothing(*_: Any) -> int:
    return 0


def _none(*_: Any) -> list[str]:
    return []


def _captures(
    worker: compat.Worker,
    carried: InterventionConfig,
    counters: Counters,
    device: torch.device,
    dtype: torch.dtype,
    max_tokens: int,
) -> Captures | None:
    """Open the sinks of a worker that captures."""
    bundle = carried.bundle
    if not bundle.captures:
        return None
    config = worker.vllm_config
    groups = groups_of(bundle, compat.owned_layers(config, bundle.num_layers))
    folder, name = engine_folder(carried.engine), compat.model_name(config)
    parallel = config.parallel_config
    rank, stages = parallel.data_parallel_rank, parallel.pipeline_parallel_size
    deliveries = Deliveries(bundle, groups, folder, name, counters, rank, stages)
    worker.interv_mark, worker.interv_held = deliveries.mark, deliveries.held
    atexit.register(deliveries.close)

    def shutdown(original: Any, *args: Any, **kwargs: Any) -> Any:
        deliveries.close()
        return original(*args, **kwargs)

    wrap(worker, "shutdown", shutdown)
    captures = Captures(bundle, groups, device, dtype, max_tokens, deliveries)

    def ended(*args: Any) -> None:
        captures.end(*args)
        deliveries.land()

    worker.interv_ended = ended
    return captures


def _max_tokens(config: compat.VllmConfig) -> int:
    """Return the most tokens a forward pass may have, padding for captured sizes included."""
    captured = config.compilation_config.max_cudagraph_capture_size or 0
    return max(int(config.scheduler_config.max_num_batched_tokens), int(captured))


def _hook_v1(runner: compat.Runner, engine: Engine) -> None:
    choices, finite = _Choices(engine.default), Finite(runner)
    anew: set[str] = set()  # requests that start or resume with their next step

    def update(original: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        engine.seen.forget(scheduler_output.finished_req_ids)
        anew.difference_update(scheduler_output.finished_req_ids)
        anew.update(compat.started(scheduler_output))
        return original(scheduler_output, *args, **kwargs)

    def forward(original: Any, *args: Any, **kwargs: Any) -> Any:
        step = _step_v1(runner, choices, anew)
        engine.begin(step)
        anew.difference_update(step.ids)
        try:
            with running(engine):
                result = original(*args, **kwargs)
            finite.look(step, result)
            engine.collect()
            return result
        finally:
            engine.publish()
            engine.clear()

    def dummy(original: Any, *args: Any, **kwargs: Any) -> Any:
        engine.clear()
        with running(engine):
            return original(*args, **kwargs)

    wrap(runner, "_update_states", update)
    wrap(runner, "_model_forward", forward)
    wrap(runner, "_dummy_run", dummy)


class _Choices:
    """What the requests of the first runner resolved to, read once a request."""

    def __init__(self, default: Choice) -> None:
        self._default = default
        self._known: dict[str, tuple[Any, Choice]] = {}

    def of(self, requests: Any, ids: Sequence[str]) -> list[Choice]:
        """Return the choice of each request; `requests` are the runner's, by id."""
        if len(self._known) > 2 * len(requests) + 64:
            self._known = {i: one for i, one in self._known.items() if i in requests}
        return [self._one(one, requests[one].sampling_params) for one in ids]

    def _one(self, name: str, params: Any) -> Choice:
        known = self._known.get(name)
        # An id may come again for another request.
        if known is None or known[0] is not params:
            known = self._known[name] = (params, choice_in(params, self._default))
        return known[1]


def _step_v1(runner: compat.Runner, choices: _Choices, anew: Collection[str]) -> Step:
    batch = runner.input_batch
    count = batch.num_reqs

    def earlier(r: int) -> Sequence[int]:
        known: Sequence[int] = batch.token_ids_cpu[r, : batch.num_computed_tokens_cpu[r]]
        return known

    return Step(
        position=runner.positions,
        token_id=runner.input_ids.gpu,
        starts=runner.query_start_loc.np[: count + 1].copy(),
        prompt_length=batch.num_prompt_tokens[:count].astype(np.int32),
        choices=choices.of(runner.requests, batch.req_ids[:count]),
        ids=list(batch.req_ids[:count]),
        anew={r: partial(earlier, r) for r, one in enumerate(batch.req_ids[:count]) if one in anew}
        if anew
        else {},
    )


def _hook_v2(runner: compat.Runner, engine: Engine) -> None:
    rows: dict[int, tuple[Choice, str]] = {}  # and its id, by the runner's own index of it
    steps: list[Step] = []  # the one that runs
    anew: dict[str, Any] = {}  # requests that start or resume with their next step

    def add(original: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(scheduler_output, *args, **kwargs)
        engine.seen.forget(scheduler_output.finished_req_ids)
        for one in scheduler_output.finished_req_ids:
            anew.pop(one, None)
        for new in scheduler_output.scheduled_new_reqs:
            index = runner.req_states.req_id_to_index[new.req_id]
            rows[index] = choice_in(new.sampling_params, engine.default), new.req_id
            anew[new.req_id] = new
        return result

    def prepare(original: Any, *args: Any, **kwargs: Any) -> Any:
        batch = original(*args, **kwargs)
        steps[:] = [_step_v2(runner, rows, batch, anew)]
        engine.begin(steps[0])
        for one in steps[0].ids:
            anew.pop(one, None)
        return batch

    def execute(original: Any, *args: Any, **kwargs: Any) -> Any:
        # A dummy or warm-up batch never reaches `prepare_inputs`, so it runs without edits.
        engine.clear()
        steps.clear()
        with running(engine):
            result = original(*args, **kwargs)
        if steps and runner.execute_model_state is not None:
            state = runner.execute_model_state
            finite.look(steps[0], (state.hidden_states, state.aux_hidden_states))
        engine.collect()
        engine.publish()
        return result

    wrap(runner, "add_requests", add)
    wrap(runner, "prepare_inputs", prepare)
    wrap(runner, "execute_model", execute)
    finite = Finite(runner)
    # CUDA graphs are captured outside `execute_model`.
    wrap(runner, "capture_model", execute)


def _step_v2(
    runner: compat.Runner,
    rows: Mapping[int, tuple[Choice, str]],
    batch: Any,
    anew: Mapping[str, Any],
) -> Step:
    count = batch.num_reqs
    indices = batch.idx_mapping_np[:count]
    ids = [rows[index][1] for index in indices.tolist()]

    def earlier(new: Any) -> Sequence[int]:
        known: Sequence[int] = new.prefill_token_ids[: new.num_computed_tokens]
        return known

    return Step(
        position=batch.positions,
        token_id=batch.input_ids,
        starts=np.asarray(batch.query_start_loc_np[: count + 1], dtype=np.int32),
        prompt_length=runner.req_states.prompt_len.np[indices],
        choices=[rows[index][0] for index in indices.tolist()],
        ids=ids,
        anew={r: partial(earlier, anew[one]) for r, one in enumerate(ids) if one in anew},
    )


def _hook_results(runner: compat.Runner, engine: Engine) -> None:
    """Have the counts of a step published before anybody reads what the runner made of it."""

    def settled(original: Any, *args: Any, **kwargs: Any) -> Any:
        return engine.counts.settle(original(*args, **kwargs))

    for name in ("execute_model", "sample_tokens", "pool"):
        if hasattr(runner, name):
            wrap(runner, name, settled)


def _hook_warm_up(worker: compat.Worker, engine: Engine) -> None:
    """Before the first request, prove that a forward pass reaches every declared site."""

    def warm_up(original: Any, *args: Any, **kwargs: Any) -> Any:
        times = original(*args, **kwargs)
        if len(engine.reached) < len(engine.bundle.spliced):
            worker.model_runner._dummy_run(_PROBE_TOKENS)
        engine.verify(compat.owned_layers(worker.vllm_config, engine.bundle.num_layers))
        engine.counts.clear()
        return times

    wrap(worker, "compile_or_warm_up_model", warm_up)


# More than one token, so that no compiler takes the batch dimension for a constant.
_PROBE_TOKENS = 8
