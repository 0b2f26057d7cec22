"""The scheduler's blocks of compressed requests.

A request's first compaction moves what stays into fresh blocks, so that a block which the prefix
cache knows, or another request reads, is never written; later ones pack into the first of its own
blocks. Either way the blocks go back to the pool in the step that the worker packs in, before the
forward pass: whoever gets them writes later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager

from interv.kv.schedule import Schedule
from interv.runtime.kv.tally import Tally


class CompressingManager(FullAttentionManager):  # type: ignore[misc]  # vLLM is untyped
    """Shifts token counts by what was dropped, and frees what a compaction leaves over."""

    def __init__(self, kv_cache_spec: Any, **kwargs: Any) -> None:
        super().__init__(kv_cache_spec, **kwargs)
        self.tally = Tally(None)
        self._schedules: dict[str, Schedule | None] = {}
        self._counts: dict[str, int] = {}
        self._compacted: set[str] = set()

    def meet(self, request_id: str, schedule: Schedule | None) -> None:
        """Say when a request is compacted, None for never; comes before its first blocks."""
        self._schedules[request_id] = schedule

    def get_num_blocks_to_allocate(
        self,
        request_id: str,
        num_tokens: int,
        new_computed_blocks: Sequence[Any],
        total_computed_tokens: int,
        *args: Any,
        **kwargs: Any,
    ) -> int:
        """Return how many blocks must be free for the request to come to `num_tokens`.

        Of a count beyond its next compaction point, as the admission asks for, only what it
        needs until then: later it never holds more.
        """
        schedule = self._schedules[request_id]
        self._counts[request_id] = count = total_computed_tokens
        if schedule is not None:
            num_tokens = min(num_tokens, schedule.next_point(count)) - schedule.dropped(count)
            if self._moves(request_id, schedule):
                # The blocks that it gives up are free before it takes new ones.
                freed: int = sum(block.ref_cnt == 1 for block in self.req_to_blocks[request_id])
                wanted: int = -(-num_tokens // self.block_size)
                return max(0, wanted - freed)
        needed: int = super().get_num_blocks_to_allocate(
            request_id, num_tokens, new_computed_blocks, total_computed_tokens, *args, **kwargs
        )
        return needed

    def allocate_new_blocks(
        self,
        request_id: str,
        num_tokens: int,
        num_tokens_main_model: int,
        *args: Any,
        **kwargs: Any,
    ) -> list[Any]:
        """Compact where the request is at a point, then give it blocks up to `num_tokens`."""
        schedule = self._schedules[request_id]
        if schedule is not None:
            count = self._counts[request_id]
            if schedule.is_point(count) and self.req_to_blocks[request_id]:
                self._compact(request_id, schedule, count)
            num_tokens -= schedule.dropped(count)
        made: list[Any] = super().allocate_new_blocks(
            request_id, num_tokens, num_tokens, *args, **kwargs
        )
        return made

    def _moves(self, request_id: str, schedule: Schedule) -> bool:
        """Say whether this step is the request's first compaction."""
        held = self.req_to_blocks.get(request_id)
        return bool(held) and self._counts[request_id] == schedule.first

    def _compact(self, request_id: str, schedule: Schedule, count: int) -> None:
        blocks = self.req_to_blocks[request_id]
        packed = -(-schedule.budget // self.block_size)
        stay = 0 if self._moves(request_id, schedule) else packed
        left = blocks[stay:]
        del blocks[stay:]
        self.block_pool.free_blocks(reversed(left))
        self._compacted.add(request_id)
        self.tally.compaction(
            dropped=schedule.held(count) - schedule.budget, freed=stay + len(left) - packed
        )

    def cache_blocks(self, request: Any, num_tokens: int, *args: Any, **kwargs: Any) -> None:
        """Publish full blocks of tokens before the first compaction, and nothing after it."""
        name = request.request_id
        schedule = self._schedules.get(name)
        if name in self._compacted:
            return
        if schedule is not None:
            num_tokens = min(num_tokens, schedule.first)
        super().cache_blocks(request, num_tokens, *args, **kwargs)

    def pop_blocks_for_free(self, request_id: str) -> list[Any]:
        """Forget a request that ends or is preempted, and return its blocks."""
        self._schedules.pop(request_id, None)
        self._counts.pop(request_id, None)
        self._compacted.discard(request_id)
        blocks: list[Any] = super().pop_blocks_for_free(request_id)
        return blocks
