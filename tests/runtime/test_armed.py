"""What an engine says that it is armed with, and the memory that it says it takes."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch

from interv.runtime.arm import MOST_BYTES, seats_for
from interv.runtime.armed import Armed, sites_text
from interv.runtime.config import InterventionConfig
from interv.sites import Site
from tests.runtime.small import bundle, engine


def held() -> dict[int, int]:
    """Return the bytes of every storage that a tensor of this process holds."""
    gc.collect()
    found = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    return {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in found}


@pytest.mark.parametrize("tokens", [8, 1000])
def test_the_memory_that_is_told_is_what_there_is(tokens: int) -> None:
    document = bundle()
    before = held()
    made = engine(document, max_tokens=tokens, slots=7)
    new = {name: size for name, size in held().items() if name not in before}
    own = made.memory()
    # Beside these, the numbers of the sites whose counts are this worker's, on the host.
    assert sum(own.values()) + 8 * len(document.sites) == sum(new.values())
    assert own["tokens"] == tokens * (4 + 8 + 4 + 4)


def test_lines_of_the_log() -> None:
    one = Armed(InterventionConfig(bundle(), slots=7, files=("a.interv", "b.interv")))
    assert one.lines({"directions": 3 << 20, "slots": 1 << 20, "captures": 0}, "cpu") == [
        "armed with a.interv, b.interv",
        "programs: calm (default)",
        "sites: 2 sites (pre_attn[0], post_block[2])",
        "7 slots of 1, 4.0 MiB on cpu: directions 3.0 MiB, slots 1.0 MiB",
    ]


def test_there_is_a_seat_for_each_request_that_may_run_as_far_as_memory_goes() -> None:
    assert seats_for(bundle(), 256) == 256
    site = bundle().sites[0]
    wide = replace(bundle(), sites=(site,) * 200, programs=tuple(map(str, range(100))))
    assert seats_for(wide, 1000) == MOST_BYTES // (8 * 200 * 100) == 419


def test_long_lists_are_cut() -> None:
    files = tuple(f"{n}.interv" for n in range(20))
    first = Armed(InterventionConfig(bundle(), files=files)).lines({}, "cpu")[0]
    assert first.endswith("10.interv, 11.interv and 8 more")
    layers = (Site("post_block", n) for n in range(30))
    assert sites_text([Site("pre_attn", 3), *layers]) == ["pre_attn[3]", "post_block[0..29]"]
