"""The scheduler's side of a KV policy: no chunk crosses a compaction, no hit skips one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interv.kv.schedule import Schedule
from interv.kv.settings import KvSettings
from interv.runtime import compat
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


def of_scheduler(scheduler: Any) -> KvScheduler | None:
    """Return what a scheduler knows of compactions; None where no policy is declared."""
    found: KvScheduler | None = getattr(scheduler, _KNOWN, None)
    return found


def most_cached(manager: Any, request: Any) -> int | None:
    """Return how many of a request's tokens its cache manager may take as cached; None for any."""
    known = of_scheduler(manager)
    return None if known is None else known.most_cached(request)


def init(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """Have a scheduler and its cache manager know the policy; wraps `Scheduler.__init__`."""
    original(self, *args, **kwargs)
    known = _make(self)
    if known is not None:
        setattr(self, _KNOWN, known)
        setattr(self.kv_cache_manager, _KNOWN, known)
        compat.ask_for_chunks(self)


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
