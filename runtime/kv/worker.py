"""Attach a KV policy to the worker that runs the model: hooks around a step, none inside it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch

from interv.errors import IntervError
from interv.kv.policy import make_policy
from interv.kv.settings import KvSettings, advice
from interv.runtime import compat
from interv.runtime.kv.compact import Compactor, Job, Layer
from interv.runtime.kv.layout import calibrate
from interv.runtime.kv.refuse import refuse_layers, refuse_worker
from interv.runtime.kv.ring import Ring
from interv.runtime.kv.steps import Steps


def attach_kv(worker: compat.Worker, settings: KvSettings) -> None:
    """Put a policy between a worker and its cache; comes before the model is made.

    Raises IntervError E570 for what the policy cannot run on.
    """
    runner = worker.model_runner
    refuse_worker(runner)
    compat.replace_cpu_attention("interv.runtime.kv.attention.CompressingBackend")
    for line in advice(settings):
        compat.log.warning("interv: %s", line)
    runner.interv_kv = KvWorker(runner, settings)


class KvWorker:
    """The worker's side of a policy: what was dropped, and compaction before a forward pass."""

    def __init__(self, runner: compat.Runner, settings: KvSettings) -> None:
        self._runner, self._settings = runner, settings
        self._policy = make_policy(settings)
        self._ring = Ring(settings.window) if self._policy.needs_queries else None
        self.steps = Steps(settings, self._ring)
        self._compactor: Compactor | None = None
        self._wrap("get_kv_cache_spec", self._specs)
        self._wrap("initialize_kv_cache", self._bind)
        self._wrap("_update_states", self._begin)
        self._wrap("_model_forward", self._forward)

    def _wrap(self, name: str, around: Any) -> None:
        original = getattr(self._runner, name)

        @functools.wraps(original)
        def method(*args: Any, **kwargs: Any) -> Any:
            return around(original, *args, **kwargs)

        setattr(self._runner, name, method)

    def _specs(self, original: Any) -> Mapping[str, Any]:
        """Return the specs of the layers' caches, as compressed ones."""
        from interv.runtime.kv.spec import CompressedSpec

        specs = original()
        refuse_layers(specs, self._runner)
        return {name: CompressedSpec.of(spec, self._settings) for name, spec in specs.items()}

    def _bind(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        """Take the caches once they are there."""
        result = original(*args, **kwargs)
        runner = self._runner
        (group,) = runner.kv_cache_config.kv_cache_groups
        modules = [
            runner.compilation_config.static_forward_context[name] for name in group.layer_names
        ]
        for index, module in enumerate(modules):
            module.impl.kv_ring, module.impl.kv_layer = self._ring, index
        for groups in runner.attn_groups:
            for one in groups:
                for builder in one.metadata_builders:
                    builder.kv_steps = self.steps
        if self._ring is not None:
            self._ring.open(len(modules))
        self.steps.block_size = group.kv_cache_spec.block_size
        self._compactor = self._made(modules)
        return result

    def _made(self, modules: list[Any]) -> Compactor:
        first = modules[0]

        def write(key: Any, value: Any, cache: Any, slots: Any) -> None:
            first.impl.do_kv_cache_update(first, key, value, cache, slots)

        scales = {module.impl.scale for module in modules}
        if len(scales) > 1:
            raise IntervError("E570", "a KV policy cannot run where layers scale logits each")
        layers = [Layer(module.kv_cache, functools.partial(_write, module)) for module in modules]
        layout = calibrate(first.kv_cache, write)
        return Compactor(self._policy, layers, layout, self._ring, scales.pop())

    def _begin(self, original: Any, scheduler_output: Any) -> Any:
        """Settle the batch, then compact its requests that are at a point."""
        result = original(scheduler_output)
        batch = self._runner.input_batch
        count = batch.num_reqs
        if count:
            due = self.steps.begin(
                batch.req_ids[:count],
                batch.num_computed_tokens_cpu[:count],
                self._runner.requests,
                bool(scheduler_output.scheduled_new_reqs),
            )
            if due:
                assert self._compactor is not None
                self._compactor.run([self._job(row) for row in due])
        return result

    def _job(self, row: int) -> Job:
        """Give a request the blocks it packs into, and return what is to be done.

        The scheduler has freed those it gives up and appended the new ones: all of them the first
        time, and later those that it grows into.
        """
        batch, size = self._runner.input_batch, self.steps.block_size
        name = batch.req_ids[row]
        count = int(batch.num_computed_tokens_cpu[row])
        held, budget = self.steps.held(row), self._settings.budget
        state = self._runner.requests[name]
        blocks = state.block_ids[0]
        old, new = blocks[: -(-held // size)], blocks[-(-held // size) :]
        packed = -(-budget // size)
        state.block_ids[0][:] = new if self.steps.is_first(row) else old[:packed] + new
        batch.block_table[0].add_row(state.block_ids[0], row)
        return Job(
            name,
            count,
            held,
            torch.tensor(old, dtype=torch.int64),
            torch.tensor(state.block_ids[0][:packed], dtype=torch.int64),
        )

    def _forward(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the model, then forget the step."""
        try:
            return original(*args, **kwargs)
        finally:
            self.steps.end()


def _write(module: Any, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
    module.impl.do_kv_cache_update(module, key, value, module.kv_cache, slots)
