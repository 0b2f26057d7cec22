"""The scheduler's side of a KV policy: no chunk crosses a compaction, no hit skips one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interv.kv.schedule import Schedule
from interv.kv.settings import KvSettings
from interv.runtime.config import InterventionConfig
from interv.runtime.kv.asked import is_compressed
from interv.runtime.kv.tally import Tally, tally_path

_KNOWN = "_interv_kv"


class KvScheduler:
    """What one scheduler knows of its requests' compactions."""

    def __init__(self, settings: KvSettings, needs_queries: bool, manager: Any) -> None:
        self._settings, self._needs_queries = settings, needs_queries
        self._manager = manager

    def clip(self, request: Any, count: int, new: int) -> int:
        """Return how many of `new` tokens a request of `count` computed ones may be given."""
        schedule = self.of(request)
        self._manager.meet(request.request_id, schedule)
        return new if schedule is None else schedule.clip(count, new)

    def most_cached(self, request: Any) -> int | None:
        """Return how many tokens may be taken from the prefix cache; None for any number."""
        schedule = self.of(request)
        if schedule is None:
            return None
        most = schedule.first - (schedule.window if self._needs_queries else 1)
        size: int = self._manager.block_size
        return most // size * size

    def of(self, request: Any) -> Schedule | None:
        """Return when a request is compacted, None for never."""
        if not hasattr(request, _KNOWN):
            on = is_compressed(request.sampling_params, self._settings)
            made = Schedule.of(self._settings, request.num_prompt_tokens) if on else None
            setattr(request, _KNOWN, made)
        found: Schedule | None = getattr(request, _KNOWN)
        return found


def _of(scheduler: Any) -> KvScheduler | None:
    """Return the scheduler's own, made on first use; None where no policy is declared."""
    if not hasattr(scheduler, _KNOWN):
        setattr(scheduler, _KNOWN, _make(scheduler))
    found: KvScheduler | None = getattr(scheduler, _KNOWN)
    return found


def _make(scheduler: Any) -> KvScheduler | None:
    config = scheduler.vllm_config
    carried = config.additional_config
    if not isinstance(carried, InterventionConfig) or carried.bundle.kv is None:
        return None
    from interv.kv.policy import make_policy
    from interv.runtime.kv.scheduler.manager import CompressingManager

    (manager,) = scheduler.kv_cache_manager.coordinator.single_type_managers
    assert isinstance(manager, CompressingManager)
    (group,) = scheduler.kv_cache_config.kv_cache_groups
    block_bytes = len(group.layer_names) * group.kv_cache_spec.page_size_bytes
    rank = config.parallel_config.data_parallel_rank
    manager.tally = Tally(Path(tally_path(carried.counters, rank)), block_bytes)
    settings = carried.bundle.kv
    return KvScheduler(settings, make_policy(settings).needs_queries, manager)


def reserve_prefill_lookahead(
    original: Any, self: Any, request: Any, num_computed_tokens: int, num_new_tokens: int
) -> int:
    """End a chunk at the next compaction; wraps `Scheduler._reserve_prefill_lookahead`."""
    new: int = original(self, request, num_computed_tokens, num_new_tokens)
    kv = _of(self)
    return new if kv is None else kv.clip(request, num_computed_tokens, new)


def local_hit(original: Any, self: Any, request: Any) -> Any:
    """Leave the queries before a compaction to be computed, whatever is cached.

    Wraps `Scheduler._get_local_prefix_cache_hit`.
    """
    blocks, count, *rest = original(self, request)
    kv = _of(self)
    most = None if kv is None else kv.most_cached(request)
    if most is not None and count > most:
        blocks = self.kv_cache_manager.truncate_computed_blocks(blocks, most)
        count = most
    return (blocks, count, *rest)
