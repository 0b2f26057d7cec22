"""What the start log says of an engine, and that its bytes are those of the tensors there."""

from __future__ import annotations

import gc
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from interv import __version__
from interv.codegen.bundle import Bundle
from interv.document.sites import Site
from interv.kv.settings import KvSettings
from interv.passes.graph.directions import Map
from interv.runtime.armed import DeviceBytes, armed_lines, device_bytes, unfused_line
from interv.runtime.captures.staging import Captures, groups_of
from interv.runtime.config import InterventionConfig
from interv.runtime.counters import HELD, USED, Counters
from interv.runtime.frontend.armed_route import described
from interv.runtime.worker.engine import Engine
from tests.passes.small import H, L
from tests.runtime.documents import carried

TEXT = """\
interv 1
vector v = "v.safetensors"
vector w = "w.safetensors"
sink rows = memory()
sink acts = filesystem("acts/")
program calm { steer v at post_block[0..2] scale 1.5  cap w at post_attn[1] in [-1, 1] }
program gated { steer v at post_block[3] scale 1 gate w at post_block[1] sharpness 2 threshold 1 }
program probe { capture at post_block[1, 3] to rows  capture at pre_attn[2] tokens prompt to acts }
default calm
"""
TOKENS, SEATS = 40, 90


def mapped(bundle: Bundle) -> Bundle:
    """Give the first two sites one full linear map, and the second a map of its own."""
    maps = [Map(n, np.eye(H, dtype=np.float32), np.zeros(H, np.float32), n) for n in "ab"]
    first, second, *rest = bundle.sites
    with_maps = (replace(first, maps=(maps[0],)), replace(second, maps=tuple(maps)))
    return replace(bundle, sites=(*with_maps, *rest))


def made(folder: Path, inline: bool = True) -> InterventionConfig:
    one = carried(folder, TEXT, slots=7, inline=inline)
    return replace(one, bundle=mapped(one.bundle), seats=SEATS, documents=("a.interv",))


def storages() -> dict[int, int]:
    """Return the bytes of every tensor's memory in this process, by its place."""
    found = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    places = [one.untyped_storage() for one in found]
    return {one._cdata: one.nbytes() for one in places}


class Nowhere:
    """Takes what was captured; nothing is."""

    def hand_over(self, *_: object) -> None:
        raise AssertionError("nothing runs here")

    def flush(self) -> None:
        raise AssertionError("nothing runs here")


def test_the_bytes_are_those_of_the_tensors(folder: Path) -> None:
    cpu = torch.device("cpu")
    for dtype, layers, inline in (
        (torch.float32, range(L), True),
        (torch.bfloat16, range(2), False),
    ):
        one = made(folder, inline)
        bundle = one.bundle
        gc.collect()
        before = storages()
        counters = Counters(None, bundle, one.seats)
        groups = groups_of(bundle, layers)
        captures = Captures(bundle, groups, cpu, dtype, TOKENS, Nowhere())
        engine = Engine(bundle, cpu, dtype, TOKENS, one.slots, counters, captures)
        after = storages()
        new = sum(size for place, size in after.items() if place not in before)
        head = counters.head.nbytes
        # What the C kernel of a site works in.
        scratch = len(bundle.sites) * 2 * H * 4
        numbers = len(bundle.sites) * 8  # of the sites that are counted here, on the host
        taken = device_bytes(one, TOKENS, dtype.itemsize, layers)
        # Grows with the requests whose selectors follow tokens.
        seen = engine.seen.ids.nbytes
        assert new == taken.total + head + scratch + numbers + seen
        tables, tokens, counts = engine.tables, engine.tokens, engine.counts
        assert taken.slots == tables.columns.nbytes + tables.count.nbytes
        parts = (tokens.slot, tokens.mask, tokens.seat, tokens.gate, tokens.index)
        assert taken.step == sum(part.nbytes for part in parts)
        assert taken.counts == counts.total.nbytes + counts.seats.nbytes
        assert min(asdict(taken).values()) > 0


def test_the_lines_of_the_log(folder: Path) -> None:
    taken = DeviceBytes(banks=1, slots=3 << 20, step=200_000, counts=0, stages=5 << 18)
    assert armed_lines(made(folder), "cpu", taken) == (
        "interv: armed by a.interv: 3 programs (calm, gated, probe), default calm,"
        " inline programs taken",
        "interv: 6 sites (pre_attn[2], post_attn[1], post_block[0..3]),"
        " 2 sinks (rows: memory, acts: filesystem), no KV policy",
        "interv: 7 slots of 16 columns, 90 reports at once; 4.5 MiB on cpu:"
        " banks 0.1, slots 3.0, step 0.2, counts 0.0, stages 1.3",
    )


def test_a_document_of_many_programs_or_none(folder: Path) -> None:
    one = made(folder, inline=False)
    many = tuple(f"p{i}" for i in range(18))
    bundle = replace(one.bundle, programs=many, default=None, sinks=(), captures=(), sites=())
    bundle = replace(bundle, kv=KvSettings(budget=24, buffer=16, default=False))
    two = replace(one, bundle=bundle, documents=("a.interv", "b.interv"))
    assert armed_lines(two, "cuda", None) == (
        f"interv: armed by a.interv, b.interv: 18 programs ({', '.join(many[:16])} and 2 more),"
        " default none, inline programs refused",
        "interv: no site, no sink, KV policy r1kv (budget 24, buffer 16, for requests that ask"
        " for it)",
    )
    none = replace(two, bundle=replace(bundle, programs=(), kv=KvSettings()))
    assert armed_lines(none, "cuda", None) == (
        "interv: armed by a.interv, b.interv: 0 programs, default none, inline programs refused",
        "interv: no site, no sink, KV policy r1kv (budget 512, buffer 128, for all requests)",
    )


def test_what_is_told_over_http(folder: Path, tmp_path: Path) -> None:
    one = replace(made(folder), counters=str(tmp_path / "counts"))
    # Two data-parallel copies.
    for rank in range(2):
        head = Counters(Path(f"{one.counters}.{rank}"), one.bundle, SEATS).head
        head[USED], head[HELD] = 3, rank
    edits = {"calm": ["post_attn[1]", "post_block[0..2]"], "gated": ["post_block[1, 3]"]}
    captures = {"probe": ["pre_attn[2]", "post_block[1, 3]"]}
    assert described(one) == {
        "interv": __version__,
        "armed": True,
        "documents": ["a.interv"],
        "programs": [
            {"name": name, "edits": edits.get(name, []), "captures": captures.get(name, [])}
            for name in ("calm", "gated", "probe")
        ],
        "default": "calm",
        "inline": True,
        "sites": ["pre_attn[2]", "post_attn[1]", "post_block[0..3]"],
        "sinks": [{"name": "rows", "kind": "memory"}, {"name": "acts", "kind": "filesystem"}],
        "kv": None,
        "slots": {"total": 14, "used": 6},
        "reports": 180,
        "held": 1,
    }
    kv = KvSettings(budget=24, own=(("kernel", 7),))
    told = described(replace(one, bundle=replace(one.bundle, kv=kv)))["kv"]
    assert (told["policy"], told["budget"], told["own"]) == ("r1kv", 24, {"kernel": 7})


def test_a_server_without_a_document() -> None:
    assert described({}) == {"interv": __version__, "armed": False}


def test_what_tensor_parallelism_loses_is_said() -> None:
    sites = (Site("post_block", 1), Site("post_attn", 1))
    assert unfused_line(sites) == (
        "interv: at 2 sites vLLM does not fuse the all-reduce with the norm behind it, since the"
        " edit needs what lies between: fewer sites lose less"
    )
