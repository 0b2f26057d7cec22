"""The ways of older versions of vLLM, against the newest one and against what they are for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    MambaSpec,
    SlidingWindowSpec,
    UniformTypeKVCacheSpecs,
)

from interv.runtime.choice import Choice
from interv.runtime.compat import chunks, new_blocks, requests, waiting, worker
from interv.runtime.kv.scheduler.schedule import _KNOWN
from interv.runtime.scheduler.cached_prefix import FIRST, get_computed_blocks
from interv.runtime.scheduler.waiting import admits
from tests.runtime.test_waiting import Request, Scheduler, choices, names, request, scheduler


class OldQueues:
    """The methods of vLLM 0.26 to 0.30 that its loop over waiting requests calls, and the loop."""

    def __init__(self, seen: Any, waiting: deque[Request], room: int) -> None:
        self.__dict__ |= vars(seen)
        self.waiting, self.skipped_waiting, self.room = waiting, deque[Request](), room

    def _select(self) -> Any:
        return _Queue(self.skipped_waiting or self.waiting)

    @staticmethod
    def _is_blocked(status: bool) -> bool:
        return status

    def _promote(self, request: Request) -> bool:
        assert request.blocked  # vLLM's own raises for a request that is not
        return False

    def take_in(self, budget: int) -> Iterator[Request]:
        skipped: deque[Request] = deque()
        select = waiting.select(admits)
        while (self.waiting or self.skipped_waiting) and budget and len(self.running) < self.room:
            queue = select(OldQueues._select, self).queue
            one = queue[0]
            if waiting.is_blocked(OldQueues._is_blocked, self, one.blocked) and not waiting.promote(
                OldQueues._promote, self, one
            ):
                skipped.appendleft(queue.popleft())
                continue
            self.running.append(queue.popleft())
            budget -= 1
            yield one
        self.skipped_waiting.extendleft(skipped)


@dataclass
class _Queue:
    queue: deque[Request]

    def __bool__(self) -> bool:
        return bool(self.queue)

    def peek_request(self) -> Request:
        return self.queue[0]


@dataclass(eq=False)
class OldScheduler(Scheduler):
    """The model of `test_waiting.py`, by the older loop; `waiting` is both of its queues."""

    skipped: deque[Request] = field(default_factory=deque)

    def _take_in(self, budget: int) -> Any:
        old = OldQueues(self._seen(), self.waiting, self.room)
        old.skipped_waiting = self.skipped
        yield from old.take_in(budget)


arrivals = st.lists(
    st.tuples(choices, st.integers(1, 4), st.booleans(), st.booleans()), min_size=1, max_size=20
)


@given(wanted=arrivals, each=st.integers(1, 4), budget=st.integers(1, 6))
@settings(deadline=None, max_examples=80)
def test_both_loops_start_the_same_requests(
    wanted: list[tuple[Choice, int, bool, bool]], each: int, budget: int
) -> None:
    newer = scheduler()
    older = OldScheduler(scheduler().gate)
    for at in range(0, len(wanted) + 40, each):
        for one in (newer, older):
            for i, (choice, steps, report, blocked) in enumerate(wanted[at : at + each]):
                made = request(at + i, choice, steps, report)
                made.blocked = blocked and at < len(wanted) / 2
                one.waiting.append(made)
        started = [names(one.schedule(budget)) for one in (newer, older)]
        assert started[0] == started[1]
        assert newer.gate._counters.head.tolist() == older.gate._counters.head.tolist()
        for one in (newer, older):
            for blocked_one in [*one.waiting, *getattr(one, "skipped", ())]:
                blocked_one.blocked = False
            for running in list(one.running):
                running.steps -= 1
                if running.steps <= 0:
                    one.leave(running)


def test_what_is_held_is_not_held_for_another_caller() -> None:
    queue = _Queue(deque([request("a", Choice(), 1)]))
    said = iter([False, True])
    select = waiting.select(lambda *_: next(said))
    own = SimpleNamespace()
    assert select(lambda _: queue, own) is queue
    assert waiting.is_blocked(lambda _: False, own, "waiting") is True
    assert waiting.promote(pytest.fail, own, "a") is False
    # A new request is put into a queue by its own status.
    assert waiting.is_blocked(lambda status: status == "blocked", own, "waiting") is False
    select(lambda _: queue, own)
    assert waiting.is_blocked(lambda status: status == "blocked", own, "blocked") is True
    assert waiting.promote(lambda _, one: one == "a", own, "a") is True
    assert select(lambda _: None, own) is None
    assert waiting.is_blocked(lambda _: False, own, "waiting") is False


class Clips:
    """Ends chunks at token 100."""

    def clip(self, request: Any, count: int, new: int) -> int:
        return min(new, 100 - count)


def test_a_chunk_ends_early_by_either_way() -> None:
    asked = SimpleNamespace(num_computed_tokens=20)
    reserve, split = chunks.reserve(lambda _: Clips()), chunks.split(lambda _: Clips())
    own = SimpleNamespace()
    assert reserve(lambda _, one, count, new: new - 1, own, asked, 30, 100) == 70
    assert reserve(lambda _, one, count, new: new - 1, own, asked, 30, 60) == 59
    # vLLM's own would align the chunk for layers that a policy refuses.
    assert split(pytest.fail, own, asked, 100) == 80
    assert split(pytest.fail, own, asked, 100, 32, 8) == 40
    assert split(pytest.fail, own, asked, 10, num_external_computed_tokens=16) == 10


def test_without_a_policy_chunks_are_vllms() -> None:
    own, asked = SimpleNamespace(), SimpleNamespace(num_computed_tokens=20)
    reserve, split = chunks.reserve(lambda _: None), chunks.split(lambda _: None)
    assert reserve(lambda _, one, count, new: (count, new), own, asked, 30, 60) == (30, 60)
    assert split(lambda _, *rest: rest, own, asked, 60, 2, 1) == (asked, 60, 2, 1)


def test_only_the_older_scheduler_has_to_be_asked_for_its_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for found, expected in ((0, False), (1, True)):
        monkeypatch.setattr(chunks, "way", lambda _, found=found: found)
        own = SimpleNamespace(need_mamba_block_aligned_split=False)
        chunks.ask_for_chunks(own)
        assert own.need_mamba_block_aligned_split is expected


SIZES: dict[str, Any] = {
    "block_size": 16,
    "num_kv_heads": 1,
    "head_size": 8,
    "dtype": torch.float32,
}
FULL, SLIDING = FullAttentionSpec(**SIZES), SlidingWindowSpec(**SIZES, sliding_window=32)
MAMBA = MambaSpec(block_size=16, shapes=((1,),), dtypes=(torch.float32,))


@pytest.mark.parametrize(("found", "noted"), [(0, [False, False, True]), (1, [True, True, True])])
def test_blocks_of_every_attention_are_noted(
    monkeypatch: pytest.MonkeyPatch, found: int, noted: list[bool]
) -> None:
    monkeypatch.setattr(new_blocks, "way", lambda _: found)
    each = [
        SimpleNamespace(kv_cache_spec=spec, _record_new_block_ids=before)
        for spec, before in ((FULL, False), (SLIDING, False), (MAMBA, True))
    ]
    other = SimpleNamespace(kv_cache_spec=MAMBA, _record_new_block_ids=False)
    new_blocks.note_new_blocks(
        SimpleNamespace(coordinator=SimpleNamespace(single_type_managers=[*each, other]))
    )
    assert [one._record_new_block_ids for one in each] == noted
    assert other._record_new_block_ids is False


@pytest.mark.parametrize(
    ("specs", "older"),
    [
        ([FULL], True),
        ([FULL, MAMBA], True),
        ([FULL, SLIDING], False),
        ([UniformTypeKVCacheSpecs(block_size=16, kv_cache_specs={"a": FULL})], True),
        (
            [UniformTypeKVCacheSpecs(block_size=16, kv_cache_specs={"a": FULL, "b": SLIDING})],
            False,
        ),
    ],
)
def test_vllms_kernel_blanks_full_attention_everywhere_and_all_in_newer_ones(
    monkeypatch: pytest.MonkeyPatch, specs: list[Any], older: bool
) -> None:
    layout = SimpleNamespace(
        kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec) for spec in specs]
    )
    for found, expected in ((0, True), (1, older)):
        monkeypatch.setattr(new_blocks, "way", lambda _, found=found: found)
        assert new_blocks.blanks_every_kind(layout) is expected


def test_the_length_of_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    new = SimpleNamespace(prompt_len=7, prompt_token_ids=[1, 2, 3], prompt_embeds=None)
    assert requests.prompt_length(new) == 7
    monkeypatch.setattr(requests, "way", lambda _: 1)
    assert requests.prompt_length(new) == 3
    new.prompt_token_ids, new.prompt_embeds = None, torch.zeros(5, 2)
    assert requests.prompt_length(new) == 5


@dataclass
class Newer:
    seq_lens: list[int]
    max_seq_len: int


@dataclass
class Older(Newer):
    _seq_lens_cpu: list[int] | None = None
    _num_computed_tokens_cpu: list[int] | None = None


def test_copies_of_lengths_are_not_kept() -> None:
    assert worker.with_lengths(Newer([3], 3), seq_lens=[2]) == Newer([2], 3)
    old = Older([3], 3, [3], [1])
    assert worker.with_lengths(old, seq_lens=[2], max_seq_len=2) == Older([2], 2, None, None)
    assert old._seq_lens_cpu == [3]


@pytest.mark.parametrize(
    ("first", "policy", "bound"),
    [(None, None, 90), (40, None, 40), (None, 64, 64), (40, 64, 40), (80, 64, 64), (0, 64, 0)],
)
def test_a_hit_is_bounded_by_what_has_to_run(
    first: int | None, policy: int | None, bound: int
) -> None:
    """Both of vLLM's forms: with the longest hit as an argument (0.33), and without."""

    class Coordinator:
        def find_longest_cache_hit(self, hashes: str, longest: int) -> tuple[str, int]:
            return hashes, longest

    manager = SimpleNamespace(coordinator=Coordinator())
    if policy is not None:
        setattr(manager, _KNOWN, SimpleNamespace(most_cached=lambda _: policy))
    asked = SimpleNamespace()
    if first is not None:
        setattr(asked, FIRST, first)

    def original(self: Any, request: Any, longest: int | None = None) -> Any:
        most = 90 if longest is None else longest
        return self.coordinator.find_longest_cache_hit("hashes", most)

    assert get_computed_blocks(original, manager, asked) == ("hashes", bound)
    assert get_computed_blocks(original, manager, asked, 30) == ("hashes", min(bound, 30))
    assert "find_longest_cache_hit" not in vars(manager.coordinator)


def test_what_cpu_this_is_is_not_asked_in_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch 2.11 cannot trace `platform.machine`, where vLLM's own method reads it."""
    from vllm.platforms import current_platform

    kind = type(current_platform)
    monkeypatch.setattr(kind, "get_cpu_architecture", kind.get_cpu_architecture)
    found = current_platform.get_cpu_architecture()
    worker.settle_platform()
    monkeypatch.setattr("platform.machine", lambda: pytest.fail("asked"))
    assert current_platform.get_cpu_architecture() is found
