"""Audit a scheduler's blocks after every step: whose they are, and that no count is wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Audit:
    """What was found over all steps since the audit began."""

    steps: int = 0
    wrong: list[str] = field(default_factory=list)
    most_held: int = 0  # blocks of one request after its first compaction
    compacted: int = 0  # requests seen after a compaction
    free: list[int] = field(default_factory=list)  # blocks, step by step
    counts: list[int] = field(default_factory=list)  # compactions, tokens, blocks, bytes


class Accounts:
    """Looks at a scheduler after each of its steps; it behaves as it would unwatched."""

    def __init__(self, scheduler: Any, limit: int) -> None:
        """`limit` is budget and buffer together."""
        self._scheduler, self._limit = scheduler, limit
        (self._manager,) = scheduler.kv_cache_manager.coordinator.single_type_managers
        self._pool = scheduler.kv_cache_manager.block_pool
        self.audit = Audit()
        self._schedule = scheduler.schedule
        self._compacted: set[str] = set()
        scheduler.schedule = self.schedule

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Schedule, then look."""
        output = self._schedule(*args, **kwargs)
        self.audit.steps += 1
        self._look()
        return output

    def found(self) -> Audit:
        """Return what was found so far."""
        self.audit.compacted = len(self._compacted)
        tally = getattr(self._manager, "tally", None)
        self.audit.counts = [] if tally is None else tally.counts.tolist()
        return self.audit

    def _look(self) -> None:
        held = self._manager.req_to_blocks
        users = Counter(block.block_id for blocks in held.values() for block in blocks)
        for block in self._pool.blocks:
            if not block.is_null and block.ref_cnt != users[block.block_id]:
                self._say(f"block {block.block_id}: {block.ref_cnt} of {users[block.block_id]}")
        unused = sum(block.ref_cnt == 0 and not block.is_null for block in self._pool.blocks)
        if unused != self._pool.get_num_free_blocks():
            self._say(f"{unused} unused, {self._pool.get_num_free_blocks()} free")
        self.audit.free.append(unused)
        for request in self._scheduler.running:
            self._look_at(request, held[request.request_id], users)

    def _look_at(self, request: Any, blocks: list[Any], users: Counter[int]) -> None:
        # What was scheduled counts as computed by now: a count beyond the point is compacted.
        extra = request.sampling_params.extra_args or {}
        first = max(request.num_prompt_tokens, self._limit)
        if extra.get("intervention_kv") == "off" or request.num_computed_tokens <= first:
            return
        self._compacted.add(request.request_id)
        self.audit.most_held = max(self.audit.most_held, len(blocks))
        for block in blocks:
            if block.block_hash is not None or users[block.block_id] != 1:
                self._say(f"block {block.block_id} of a compacted request is shared")

    def _say(self, text: str) -> None:
        if len(self.audit.wrong) < 20:
            self.audit.wrong.append(f"step {self.audit.steps}: {text}")
