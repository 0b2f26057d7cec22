"""Attach a KV policy to the worker that runs the model: hooks around a step, none inside it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from interv.errors import IntervError
from interv.kv.policy import make_policy
from interv.kv.settings import KvSettings, advice
from interv.runtime import compat
from interv.runtime.kv.worker.attention import BACKENDS
from interv.runtime.kv.worker.batch import Batch, batches_of
from interv.runtime.kv.worker.compact import Compactor, Job, Layer
from interv.runtime.kv.worker.layout import calibrate
from interv.runtime.kv.worker.refuse_model import refuse_blocks, refuse_layers, refuse_worker
from interv.runtime.kv.worker.ring import Ring
from interv.runtime.kv.worker.steps import Steps
from interv.runtime.wrap import wrap


def attach_kv(worker: compat.Worker, settings: KvSettings) -> None:
    """Put a policy between a worker and its cache; comes before the model is made.

    Raises IntervError E571 for a runner that it cannot be attached to.
    """
    runner = worker.model_runner
    refuse_worker(runner)
    compat.replace_attention(BACKENDS)
    for line in advice(settings):
        compat.log.warning("interv: %s", line)
    kv = runner.interv_kv = KvWorker(runner, settings)
    wrap(worker, "compile_or_warm_up_model", kv.warm_up)


class KvWorker:
    """The worker's side of a policy: what was dropped, and compaction before a forward pass."""

    def __init__(self, runner: compat.Runner, settings: KvSettings) -> None:
        self._runner, self._settings = runner, settings
        self._policy = make_policy(settings)
        self._ring = Ring(settings.window) if self._policy.needs_queries else None
        self.steps = Steps(settings, self._ring, runner.device)
        self._compactor: Compactor | None = None
        self._warming_up = False
        self._blank: tuple[list[int], Callable[[], None]] | None = None
        self._batches = batches_of(runner, settings)
        wrap(runner, "get_kv_cache_spec", self._specs)
        wrap(runner, "initialize_kv_cache", self._bind)
        self._batches.hook(self._begin, self.steps.end)

    def _specs(self, original: Any) -> Mapping[str, Any]:
        """Return the specs of the layers' caches, as compressed ones."""
        from interv.runtime.kv.scheduler.spec import CompressedSpec

        specs = original()
        layers = self._runner.compilation_config.static_forward_context
        refuse_layers(specs, layers)
        if self._ring is not None and compat.captures_attention(self._runner):
            # Now, so that vLLM counts them in what is left for the cache.
            impl = layers[next(iter(specs))].impl
            shape, device = (0, impl.num_heads, impl.head_size), self._runner.device
            like = torch.empty(shape, dtype=self._runner.dtype, device=device)
            seats, tokens = self._runner.max_num_reqs, compat.most_captured(self._runner)
            self._ring.fix(len(specs), seats, tokens, like)
        return {name: CompressedSpec.of(spec, self._settings) for name, spec in specs.items()}

    def _bind(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        """Take the caches once they are there; those that are made for a profile go again."""
        result = original(*args, **kwargs)
        if kwargs.get("is_profiling"):
            return result
        runner = self._runner
        (group,) = runner.kv_cache_config.kv_cache_groups
        size = group.kv_cache_spec.block_size
        modules = [
            runner.compilation_config.static_forward_context[name] for name in group.layer_names
        ]
        refuse_blocks(modules[0], size)
        for index, module in enumerate(modules):
            module.impl.kv_ring, module.impl.kv_layer = self._ring, index
        for builder in _builders(runner):
            builder.kv_steps = self.steps
            if compat.captures_attention(runner):
                most = max(runner.max_num_reqs, compat.most_captured(runner))
                builder.kv_lengths = torch.zeros(most, dtype=torch.int32, device=runner.device)
        if self._ring is not None:
            self._ring.open(len(modules))
        self.steps.block_size = size
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

    def warm_up(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a worker's warm-up, whose requests no scheduler has given blocks to pack into."""
        self._warming_up = True
        try:
            return original(*args, **kwargs)
        finally:
            self._warming_up = False

    def _begin(self, batch: Batch) -> None:
        """Take in a step's batch, and compact its requests that are at a point."""
        due = [] if self._warming_up else self.steps.begin(batch)
        blank, self._blank = self._blank, None
        if due:
            assert self._compactor is not None
            jobs = [self._job(batch, row) for row in due]
            self._compactor.run(jobs, blank[0] if blank else ())
        elif blank:
            blank[1]()

    def blanks(self, ids: Sequence[int], now: Callable[[], None]) -> None:
        """Take in which blocks are to be zeros before the coming step writes.

        `now` makes them so where nothing is compacted in the step.
        """
        self._blank = [*ids], now

    def _job(self, batch: Batch, row: int) -> Job:
        """Give a request the blocks it packs into, and return what is to be done.

        The scheduler has freed those it gives up and appended the new ones: all of them the first
        time, and later those that it grows into.
        """
        size = self.steps.block_size
        held = self.steps.held(row)
        packed = -(-self._settings.budget // size)
        stay = 0 if self.steps.is_first(row) else packed
        sources, targets = self._batches.cut(row, -(-held // size), stay, packed)
        return Job(batch.ids[row], int(batch.counts[row]), held, sources, targets)


def _builders(runner: compat.Runner) -> Iterator[Any]:
    for groups in runner.attn_groups:
        for one in groups:
            yield from one.metadata_builders


def _write(module: Any, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
    module.impl.do_kv_cache_update(module, key, value, module.kv_cache, slots)
