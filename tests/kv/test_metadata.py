"""What vLLM's own builders for CUDA make of a step, and what a captured graph would read of it.

Nothing attends here: that needs the GPU, or the interpreter of `test_engine.py`.
"""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

# vLLM's attention loads parts of PyTorch that PyTorch itself calls deprecated.
with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    from vllm.config import CUDAGraphMode
    from vllm.v1.attention.backend import CommonAttentionMetadata

    from interv.runtime.kv.worker.flash import CompressingFlashBackend
    from interv.runtime.kv.worker.triton import CompressingTritonBackend

from interv.kv.settings import KvSettings
from interv.runtime import compat
from interv.runtime.kv.worker.attention import BACKENDS
from interv.runtime.kv.worker.batch import NEVER, Batch
from interv.runtime.kv.worker.ring import Ring
from interv.runtime.kv.worker.steps import Steps

BLOCK, REQUESTS, PADDED = 16, 3, 4
SETTINGS = KvSettings(budget=18, buffer=10, window=4)
CPU = torch.device("cpu")


def config() -> Any:
    """Return what the builders ask of a configuration."""
    model = SimpleNamespace(
        get_num_attention_heads=lambda _: 4,
        get_num_kv_heads=lambda _: 2,
        get_head_size=lambda: 32,
        hf_config=SimpleNamespace(model_type="llama"),
        rswa_window=None,
        is_mm_prefix_lm=False,
    )
    compilation = SimpleNamespace(
        cudagraph_mode=CUDAGraphMode.FULL_AND_PIECEWISE,
        cudagraph_capture_sizes=[1, 2, PADDED],
        max_cudagraph_capture_size=PADDED,
        static_forward_context={},
    )
    return SimpleNamespace(
        model_config=model,
        compilation_config=compilation,
        parallel_config=SimpleNamespace(cp_kv_cache_interleave_size=1),
        cache_config=SimpleNamespace(cache_dtype="auto"),
        attention_config=SimpleNamespace(flash_attn_max_num_splits_for_cuda_graph=32),
        kernel_config=SimpleNamespace(enable_jit_warmup=False),
        scheduler_config=SimpleNamespace(max_num_seqs=PADDED, max_num_batched_tokens=64),
        additional_config={},
    )


def common(lengths: list[int], new: list[int]) -> CommonAttentionMetadata:
    """Return a step of some requests, padded as for a captured graph."""
    starts = torch.tensor([0, *np.cumsum(new).tolist()], dtype=torch.int32)
    positions = [p for n, k in zip(lengths, new, strict=True) for p in range(n - k, n)]
    table = torch.arange(len(lengths) * 8, dtype=torch.int32).view(len(lengths), 8)
    return CommonAttentionMetadata(
        query_start_loc=starts,
        query_start_loc_cpu=starts,
        seq_lens=torch.tensor(lengths, dtype=torch.int32),
        seq_lens_cpu_upper_bound=torch.tensor(lengths, dtype=torch.int32),
        num_reqs=len(lengths),
        num_actual_tokens=sum(new),
        max_query_len=max(new),
        max_seq_len=max(lengths),
        block_table_tensor=table,
        slot_mapping=torch.full((sum(new) + 1,), -1),
        positions=torch.tensor(positions),
    )


def batch(*counts: int) -> Batch:
    """The first point of the first two requests is 28 tokens, the third is `off`."""
    ids = [str(i) for i in range(len(counts))]
    return Batch(ids, np.array(counts), np.array([28, 28, NEVER]), ids)


@pytest.fixture(params=[CompressingFlashBackend, CompressingTritonBackend])
def builder(request: pytest.FixtureRequest) -> Any:
    (kind,) = compat.full_attention_kinds()
    spec = kind(block_size=BLOCK, num_kv_heads=2, head_size=32, dtype=torch.bfloat16)
    made = request.param.get_builder_cls()(spec, [], config(), CPU)
    made.kv_steps = Steps(SETTINGS, None, CPU)
    made.kv_steps.block_size = BLOCK
    return made


def test_a_compacted_request_is_as_long_as_what_is_left(builder: Any) -> None:
    step = common([31, 20, 61], [1, 5, 1])
    builder.kv_steps.begin(batch(30, 15, 60))
    found = builder.build(0, step)
    # The first was cut from 28 to 18 tokens.
    assert found.seq_lens.tolist() == [21, 20, 61]
    assert found.max_seq_len == 61
    assert step.seq_lens.tolist() == [31, 20, 61]
    assert found.slot_mapping is step.slot_mapping
    place = [(0, 20), *((1, p) for p in range(15, 20)), (2, 60)]
    wanted = [(row * 8 + p // BLOCK) * BLOCK + p % BLOCK for row, p in place]
    assert step.slot_mapping.tolist() == [*wanted, -1]


def test_without_a_policy_it_is_vllms_own(builder: Any) -> None:
    builder.kv_steps = None
    step = common([31, 20, 61], [1, 5, 1])
    assert builder.build(0, step).seq_lens is step.seq_lens
    assert step.slot_mapping.tolist() == [-1] * 8


def test_a_captured_graph_reads_every_step_in_one_place(builder: Any) -> None:
    """Captured with all rows padded; then a step with a compacted request, and one without."""
    builder.kv_lengths = torch.zeros(PADDED, dtype=torch.int32)
    ones = [1] * PADDED
    captured = builder.build_for_cudagraph_capture(common([9] * PADDED, ones))
    for counts, lengths in (((30, 15, 60), [21, 16, 61]), ((20, 15, 60), [21, 16, 61])):
        builder.kv_steps.begin(batch(*counts))
        step = common([*(n + 1 for n in counts), 0], ones)
        found = builder.build(0, step)
        builder.kv_steps.end()
        assert found.seq_lens.data_ptr() == captured.seq_lens.data_ptr()
        assert captured.seq_lens.tolist() == [*lengths, 0]
    # A pass of no request, as for warm-up, is as long as it says.
    builder.build(0, common([7] * PADDED, ones))
    assert captured.seq_lens.tolist() == [7] * PADDED


def test_queries_of_a_replayed_pass_are_kept_where_they_belong() -> None:
    """What a graph would do, a copy by rows that were put there before it, against the usual."""
    window, heads, size = SETTINGS.window, 2, 8
    usual, fixed = Ring(window), Ring(window)
    usual.open(1)
    fixed.fix(1, REQUESTS, 8, torch.empty(0, heads, size))
    rng = torch.Generator().manual_seed(3)
    for start in (24, 26):  # two passes of two requests up to their point at 28
        queries = torch.randn(8, heads, size, generator=rng)
        for ring, seen in ((usual, queries[:6]), (fixed, queries)):
            steps = Steps(SETTINGS, ring, CPU)
            steps.begin(batch(start, start, 60))
            steps.shortened(common([start + 2, start + 2, 62], [2, 2, 2]))
            ring.note(0, seen)  # the pass is padded where it is replayed
            steps.end()
            ring.note(0, torch.full((8, heads, size), torch.nan))
    for name in "01":
        found = fixed.queries([0], name, 28)
        assert torch.equal(found, usual.queries([0], name, 28))
        assert not found.isnan().any()


def test_every_backend_is_one_of_vllms() -> None:
    from vllm.utils.import_utils import resolve_obj_by_qualname

    for name, path in BACKENDS.items():
        found = resolve_obj_by_qualname(path)
        assert found.get_name() == name
        assert found.get_impl_cls().__mro__[1].__name__ == "Keeping"
        assert found.get_builder_cls().__mro__[1].__name__ == "Shortening"
