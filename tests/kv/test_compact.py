"""Compaction on caches of plain tensors: what is packed where, and the layout of a CPU's cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from interv.errors import IntervError
from interv.kv.policy import make_policy
from interv.kv.settings import KvSettings
from interv.runtime.kv.worker.batch import NEVER, Batch
from interv.runtime.kv.worker.compact import Compactor, Job, Layer
from interv.runtime.kv.worker.layout import Layout, calibrate
from interv.runtime.kv.worker.ring import Ring
from interv.runtime.kv.worker.steps import Steps
from tests.kv.reference import Numbers, kept

LAYERS, HEADS, GROUPS, SIZE, BLOCK, BLOCKS = 3, 4, 2, 8, 4, 40
OWN = (("lambda", 0.1), ("kernel", 3), ("threshold", 0.5))
SETTINGS = KvSettings(budget=18, buffer=10, window=4, own=OWN)
NUMBERS = Numbers(18, 4, 3)
SCALE = SIZE**-0.5


def plain_write(
    key: torch.Tensor, value: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor
) -> None:
    """Write tokens as they are: a block's keys, then its values, each token by token."""
    both = cache.view(len(cache), cache.shape[1], 2, BLOCK, SIZE)
    for part, rows in enumerate((key, value)):
        both[slots // BLOCK, :, part, slots % BLOCK] = rows


def plain_layout() -> Layout:
    order = torch.arange(BLOCK * SIZE)
    return Layout(BLOCK, SIZE, order, order + BLOCK * SIZE)


@dataclass
class Bench:
    """A few layers' caches and the requests in them."""

    ring: Ring = field(default_factory=lambda: Ring(SETTINGS.window))
    caches: list[torch.Tensor] = field(
        default_factory=lambda: [
            torch.full((BLOCKS, GROUPS, BLOCK, 2 * SIZE), torch.nan) for _ in range(LAYERS)
        ]
    )

    def compactor(self) -> Compactor:
        self.ring.open(LAYERS)
        layers = [
            Layer(cache, lambda k, v, s, cache=cache: plain_write(k, v, cache, s))
            for cache in self.caches
        ]
        return Compactor(make_policy(SETTINGS), layers, plain_layout(), self.ring, SCALE)

    def fill(self, name: str, blocks: list[int], held: int, seed: int) -> list[Any]:
        """Put a request's tokens into its blocks; return keys, values and queries by layer."""
        generator = torch.Generator().manual_seed(seed)
        shape = (held, GROUPS, SIZE)
        place = torch.arange(held)
        slots = torch.tensor(blocks)[place // BLOCK] * BLOCK + place % BLOCK
        window, seat = SETTINGS.window, self.ring.seat(name)
        recent = torch.arange(held - window, held)
        self.ring.begin(torch.arange(window), seat * window + recent % window, window)
        made = []
        for layer, cache in enumerate(self.caches):
            keys, values = (torch.randn(shape, generator=generator) for _ in range(2))
            queries = torch.randn(window, HEADS, SIZE, generator=generator)
            plain_write(keys, values, cache, slots)
            self.ring.note(layer, queries)
            made.append((keys, values, queries))
        self.ring.end()
        return made


def packed(bench: Bench, blocks: list[int], layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what lies in the first `budget` places of some blocks, `[G, budget, D]` each."""
    keys, values = plain_layout().read(bench.caches[layer], torch.tensor(blocks))
    return keys[:, : SETTINGS.budget], values[:, : SETTINGS.budget]


def assert_packed(bench: Bench, made: list[Any], blocks: list[int]) -> None:
    for layer, (keys, values, queries) in enumerate(made):
        stay = kept(keys.transpose(0, 1), queries, NUMBERS)
        found = packed(bench, blocks, layer)
        for group, tokens in enumerate(stay):
            assert torch.equal(found[0][group], keys[tokens, group])
            assert torch.equal(found[1][group], values[tokens, group])


def job(name: str, held: int, sources: list[int], targets: list[int]) -> Job:
    return Job(name, held, held, torch.tensor(sources), torch.tensor(targets))


def test_requests_may_trade_their_blocks() -> None:
    """One packs into blocks that the other gives back in the same step, and the reverse."""
    bench = Bench()
    first, second, third = [3, 7, 1, 9, 4, 11, 2], [20, 5, 6, 8, 30, 31, 32], [12, 13, 14, 15]
    compactor = bench.compactor()
    a = bench.fill("a", first, 28, 1)
    b = bench.fill("b", second, 28, 2)
    c = bench.fill("c", [*third, 16, 17, 18, 19, 21, 22], 39, 3)
    compactor.run(
        [
            job("a", 28, first, second[:5]),
            job("c", 39, [*third, 16, 17, 18, 19, 21, 22], [*third, 16]),
            job("b", 28, second, first[:5]),
        ]
    )
    assert_packed(bench, a, second[:5])
    assert_packed(bench, b, first[:5])
    assert_packed(bench, c, [*third, 16])


def test_layers_in_portions_are_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = Bench(), Bench()
    for bench in (whole, parts):
        compactor = bench.compactor()
        bench.fill("a", list(range(7)), 28, 1)
        if bench is parts:
            monkeypatch.setattr("interv.runtime.kv.worker.compact._MOST", 1)
        compactor.run([job("a", 28, list(range(7)), list(range(10, 15)))])
    for one, other in zip(whole.caches, parts.caches, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_seats_are_used_again() -> None:
    ring = Ring(4)
    assert [ring.seat(name) for name in "aba"] == [0, 1, 0]
    ring.leave("a")
    ring.leave("nobody")
    assert ring.seat("c") == 0
    ring.keep_only({"b"})
    assert ring.seat("d") == 0
    assert ring.seat("b") == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("block", "size"), [(32, 64), (128, 128)])
def test_the_layout_is_read_off(dtype: torch.dtype, block: int, size: int) -> None:
    """Any order of the elements within a block can be read, even one for keys alone."""
    order = torch.randperm(block * size)

    def write(
        key: torch.Tensor, value: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor
    ) -> None:
        memory = cache.view(len(cache), GROUPS, 2, block * size)
        whole = key.view(-1, block, GROUPS, size).transpose(1, 2).flatten(2)
        memory[:, :, 0] = whole[..., order]
        memory[:, :, 1] = value.view(-1, block, GROUPS, size).transpose(1, 2).flatten(2)

    cache = torch.zeros(5, GROUPS, block, 2 * size, dtype=dtype)
    layout = calibrate(cache, write)
    key, value = (torch.randn(5 * block, GROUPS, size).to(dtype) for _ in range(2))
    write(key, value, cache, torch.arange(5 * block))
    keys, values = layout.read(cache, torch.tensor([4, 0]))
    wanted = torch.cat([torch.arange(4 * block, 5 * block), torch.arange(block)])
    assert torch.equal(keys, key[wanted].transpose(0, 1))
    assert torch.equal(values, value[wanted].transpose(0, 1))


@pytest.mark.parametrize("heads_first", [True, False])
def test_the_layout_of_the_backends_for_cuda(heads_first: bool) -> None:
    """Token by token and head by head, in either order in memory; values lie behind keys."""

    def write(
        key: torch.Tensor, value: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor
    ) -> None:
        parts = cache.transpose(1, 2).split(SIZE, dim=-1)
        for part, rows in zip(parts, (key, value), strict=True):
            part[slots // BLOCK, slots % BLOCK] = rows

    if heads_first:
        cache = torch.zeros(5, GROUPS, BLOCK, 2 * SIZE)
    else:
        cache = torch.zeros(5, BLOCK, GROUPS, 2 * SIZE).transpose(1, 2)
    layout = calibrate(cache, write)
    key, value = (torch.randn(5 * BLOCK, GROUPS, SIZE) for _ in range(2))
    write(key, value, cache, torch.arange(5 * BLOCK))
    keys, values = layout.read(cache, torch.tensor([3, 1]))
    wanted = torch.cat([torch.arange(n * BLOCK, (n + 1) * BLOCK) for n in (3, 1)])
    assert torch.equal(keys, key[wanted].transpose(0, 1))
    assert torch.equal(values, value[wanted].transpose(0, 1))


def test_a_cache_that_keeps_something_else_is_refused() -> None:
    def write(
        key: torch.Tensor, value: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor
    ) -> None:
        plain_write(key / 2, value, cache, slots)

    cache = torch.zeros(2, GROUPS, BLOCK, 2 * SIZE)
    with pytest.raises(IntervError) as refused:
        calibrate(cache, write)
    assert str(refused.value) == (
        "error[E575]: keys and values lie in the cache in an order that interv cannot read\n"
        "  = type torch.float32, 4 tokens a block, head size 8"
    )


def batch(counts: dict[str, int], first: dict[str, int]) -> Batch:
    """Return a batch of requests with these counts; one without a first point is `off`."""
    points = np.array([first.get(name, NEVER) for name in counts])
    return Batch(list(counts), np.array(list(counts.values())), points, counts)


def steps_on_a_cpu(ring: Ring | None) -> Steps:
    steps = Steps(SETTINGS, ring, torch.device("cpu"))
    steps.block_size = BLOCK
    return steps


@dataclass
class Common:
    """What the metadata builders are given, as far as it is changed."""

    query_start_loc_cpu: torch.Tensor
    seq_lens: torch.Tensor
    positions: torch.Tensor
    block_table_tensor: torch.Tensor
    slot_mapping: torch.Tensor
    max_seq_len: int = 0
    seq_lens_cpu_upper_bound: torch.Tensor | None = None


def test_a_step_is_as_long_as_what_is_left() -> None:
    """Of four requests: one compacted, one off, one before its point, one in a chunk up to it."""
    counts, new = np.array([30, 60, 26, 33]), [1, 1, 1, 7]
    ring = Ring(SETTINGS.window)
    ring.open(1)
    steps = steps_on_a_cpu(ring)
    requests = dict(zip("abcd", counts.tolist(), strict=True))
    assert steps.begin(batch(requests, {"a": 28, "c": 28, "d": 40})) == []
    starts = np.concatenate([[0], np.cumsum(new)])
    positions = np.concatenate([np.arange(n, n + k) for n, k in zip(counts, new, strict=True)])
    table = torch.arange(4 * 20).view(4, 20)
    common = Common(
        torch.from_numpy(starts),
        torch.from_numpy(counts + new).int(),
        torch.from_numpy(positions),
        table,
        torch.full((12,), -1),
        seq_lens_cpu_upper_bound=torch.from_numpy(counts + new).int(),
    )
    short = steps.shortened(common)
    # The first was cut from 28 to 18 tokens.
    assert short.seq_lens.tolist() == [31 - 10, 61, 27, 40]
    assert short.max_seq_len == 61
    assert short.seq_lens_cpu_upper_bound.tolist() == [31 - 10, 61, 27, 40]
    assert common.seq_lens.tolist() == [31, 61, 27, 40]
    rows = [0, 1, 2, *[3] * 7]
    gone = [10, 0, 0, *[0] * 7]
    wanted = [
        int(table[r, (p - g) // BLOCK]) * BLOCK + (p - g) % BLOCK
        for r, g, p in zip(rows, gone, positions.tolist(), strict=True)
    ]
    assert common.slot_mapping.tolist() == [*wanted, -1, -1]
    # Kept: of c position 26, within 4 of its point 28, and of d the last 4 before 40.
    queries = torch.arange(10.0).view(10, 1, 1).expand(10, 1, 2)
    ring.note(0, queries)
    assert ring.queries([0], "d", 40)[0, :, 0, 0].tolist() == [6.0, 7.0, 8.0, 9.0]
    assert float(ring.queries([0], "c", 28)[0, 2, 0, 0]) == 2.0
    steps.end()
    assert steps.shortened(common) is common


def test_due_requests_are_named() -> None:
    steps, first = steps_on_a_cpu(None), {"a": 28, "b": 50, "c": 28}
    assert steps.begin(batch({"a": 28, "b": 50, "c": 38}, first)) == [0, 1, 2]
    assert [steps.is_first(row) for row in range(3)] == [True, True, False]
    assert [steps.held(row) for row in range(3)] == [28, 50, 28]
    assert steps.begin(batch({"b": 51, "c": 39}, first)) == []
    assert steps.begin(batch({"b": 51, "c": 39}, {**first, "b": 51})) == [0]
