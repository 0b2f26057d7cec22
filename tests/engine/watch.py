"""Watch a scheduler from outside: what it really did, so that a test cannot pass by doing less."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.engine.answer import Seen


class Watch:
    """Counts over all calls since `reset`; the scheduler behaves as it would unwatched."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self.reset()
        self._schedule = scheduler.schedule
        self._update = scheduler.update_from_output
        self._preempt = scheduler._preempt_request
        scheduler.schedule = self.schedule
        scheduler.update_from_output = self.update_from_output
        scheduler._preempt_request = self.preempt_request
        pool = scheduler.kv_cache_manager.block_pool
        self._evict = pool._maybe_evict_cached_block
        pool._maybe_evict_cached_block = self.evict_cached_block

    def reset(self) -> None:
        """Start to count from nothing."""
        self.seen = Seen()
        self._chunks: Counter[str] = Counter()

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Schedule, and look at the step that comes out."""
        before = {name: one.num_preemptions for name, one in self._scheduler.requests.items()}
        output = self._schedule(*args, **kwargs)
        fed = output.num_scheduled_tokens
        if not fed:
            return output
        self.seen.steps += 1
        self.seen.peak_running = max(self.seen.peak_running, len(fed))
        for name, count in fed.items():
            request = self._scheduler.requests[name]
            # Behind what was found in the prefix cache; what is fed counts as computed already.
            start, preemptions = request.num_computed_tokens - count, before[name]
            if start < request.num_prompt_tokens:
                self._chunks[name] += not preemptions
            if preemptions:
                known = min(start + count, request.num_tokens - 1)
                self.seen.recomputed += max(0, known - max(start, request.num_prompt_tokens))
        self.seen.chunks = max([self.seen.chunks, *self._chunks.values()])
        return output

    def update_from_output(self, output: Any, result: Any, *args: Any, **kwargs: Any) -> Any:
        """Take a step's result in, and count the drafts that it proved right."""
        for name, drafts in output.scheduled_spec_decode_tokens.items():
            sampled = result.sampled_token_ids[result.req_id_to_index[name]]
            self.seen.drafted += len(drafts)
            self.seen.accepted += max(0, len(sampled) - 1)
        return self._update(output, result, *args, **kwargs)

    def preempt_request(self, *args: Any, **kwargs: Any) -> Any:
        """Preempt a request."""
        self.seen.preempted += 1
        return self._preempt(*args, **kwargs)

    def evict_cached_block(self, *args: Any, **kwargs: Any) -> Any:
        """Take a block from the prefix cache where it is in it."""
        evicted = self._evict(*args, **kwargs)
        self.seen.evicted += bool(evicted)
        return evicted
