"""Programs that cannot stand together; full linear maps in the cache and in an engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from interv.codegen.kernels.norm import Norm, add_norm
from interv.errors import IntervError
from interv.passes.captured.absorb_norm import Rounding
from interv.runtime.choice import Choice
from interv.runtime.frontend.admission import Admission
from interv.runtime.worker.engine import Engine
from tests.passes.small import H, vectors
from tests.runtime.documents import carried, config
from tests.runtime.prefixes import Core, keyed_hashing
from tests.runtime.small import step
from tests.tolerances import FLOAT32

HEAD = """\
interv 1
vector v = "v.safetensors"
vector w = "w.safetensors"
adapter full = "full.safetensors"
"""
TEXT = f"""{HEAD}
program warp  {{ apply full at post_block[1] scale 0.5 }}
program other {{ apply full at post_block[1] scale 0.25 when generated }}
program early {{ apply full at post_block[1] when prompt }}
program calm  {{ steer v at post_block[1] scale 2 }}
program late  {{ steer v at post_block[1] scale 2 when generated }}
program apart {{ steer v at pre_attn[2] }}
program probe {{ steer v at post_block[3] gate w at post_block[1] }}
"""
FIRST = "ask for '{}' first: the map comes before all other edits of its site"
EITHER = "ask for one of them, or edit other sites or tokens"


@pytest.fixture
def root(tmp_path: Path, folder: Path) -> Path:
    for name in ("v", "w"):
        (tmp_path / f"{name}.safetensors").symlink_to(folder / f"{name}.safetensors")
    write_map(tmp_path, 0)
    return tmp_path


def write_map(root: Path, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(H, H)).astype(np.float32) / 4
    bias = rng.normal(size=H).astype(np.float32)
    save_file({"weight": weight, "bias": bias}, root / "full.safetensors")
    return torch.from_numpy(weight), torch.from_numpy(bias)


MEETINGS = {
    ("sequential", "warp + calm"): None,
    ("sequential", "calm + warp"): FIRST.format("warp"),
    ("sequential", "warp + other"): EITHER,
    ("sequential", "late + early"): None,
    ("sequential", "early + other"): None,
    ("sequential", "apart + warp"): None,
    ("sequential", "probe + warp"): FIRST.format("warp"),
    ("sequential", "calm*0 + warp"): None,
    ("sum", "warp + calm"): EITHER,
    ("sum", "calm + warp"): EITHER,
    ("sum", "early + late"): None,
    ("priority", "calm + warp"): None,
    ("priority", "warp + calm"): None,
    ("priority", "warp + probe"): EITHER,
    ("error", "warp + probe"): EITHER,
    ("error", "early + late"): None,
}


@pytest.mark.parametrize(("conflict", "asked"), MEETINGS, ids=str)
def test_who_may_meet_a_map(root: Path, conflict: str, asked: str) -> None:
    one = Admission(carried(root, f"{TEXT}conflict {conflict}\n"), config())
    helps = MEETINGS[conflict, asked]
    if helps is None:
        assert one.resolve({"intervention": asked}).terms
        return
    with pytest.raises(IntervError) as caught:
        one.resolve({"intervention": asked})
    first, second = asked.split(" + ")
    assert str(caught.value) == (
        f"error[E418]: programs '{first}' and '{second}' meet at post_block[1] on tokens that a"
        " full linear map takes\n"
        f"  = in the request: {asked}\n"
        "  = such a map is applied before all other edits of its site\n"
        f"  = {helps}"
    )


def choice(*terms: tuple[str, float]) -> Choice:
    return Choice.of(terms)


@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
def test_an_engine_maps_before_it_edits(root: Path, pair: bool) -> None:
    weight, bias = write_map(root, 0)
    found = carried(root, f"{TEXT}conflict sequential\n")
    engine = Engine(found.bundle, torch.device("cpu"), torch.float32, 32, 4)
    choices = [choice(("warp", 2.0), ("calm", 1.0)), Choice(), choice(("warp", -1.0))]
    engine.begin(step([(0, 3, 3), (0, 2, 2), (0, 3, 2)], choices))
    hidden = torch.randn(8, H)
    residual = torch.randn(8, H) if pair else None
    before = hidden.clone()
    h = before if residual is None else before + residual
    engine.update("post_block[1]", hidden, residual)
    change = h @ weight.T + bias - h
    scale = torch.tensor([1.0] * 3 + [0.0] * 2 + [-0.5] * 3)[:, None]
    expected = before + scale * change
    expected[:3] += 2.0 * torch.from_numpy(vectors()["v"].at(1)).float()
    assert (hidden - expected).abs().max() <= 10 * FLOAT32
    assert torch.equal(hidden[3:5], before[3:5])
    index = [str(table.site) for table in found.bundle.sites].index("post_block[1]")
    rows = dict(zip(found.bundle.counted, engine.counters.rows()[index].tolist(), strict=True))
    assert {name: n for name, n in rows.items() if n} == {"warp": 6, "calm": 3}


def test_programs_with_maps_under_priority_take_turns(root: Path) -> None:
    weight, bias = write_map(root, 0)
    found = carried(root, f"{TEXT}conflict priority\n")
    engine = Engine(found.bundle, torch.device("cpu"), torch.float32, 32, 4)
    engine.begin(step([(0, 4, 2)], [choice(("late", 1.0), ("warp", 1.0))]))
    hidden = torch.randn(4, H)
    before = hidden.clone()
    engine.update("post_block[1]", hidden, None)
    mapped = before + 0.5 * (before @ weight.T + bias - before)
    assert (hidden[:2] - mapped[:2]).abs().max() <= FLOAT32
    moved = hidden[2:] - before[2:]
    assert (moved - moved[0]).abs().max() <= FLOAT32
    assert moved.any()


def test_a_map_forks_the_cache_by_its_values(root: Path) -> None:
    prompt = tuple(range(16))

    def hashes(name: str, text: str = TEXT) -> list[bytes]:
        made = carried(root, text)
        return list(Core(made).request(name, prompt).block_hashes)

    with keyed_hashing():
        stock, warp, early = hashes("off"), hashes("warp"), hashes("early")
        assert hashes("warp*1.0") == warp
        assert hashes("other") == stock
        assert len({tuple(one) for one in (stock, warp, early)}) == 3
        assert hashes("warp*2") == early
        # Another map before it in the tables changes neither.
        more = TEXT.replace(
            "program warp", "program more { apply next at post_block[1] }\nprogram warp"
        )
        head = 'adapter next = "next.safetensors"\nvector v'
        square = np.eye(H, dtype=np.float32)
        save_file({"weight": 2 * square}, root / "next.safetensors")
        wider = more.replace("vector v", head, 1)
        assert hashes("warp", wider) == warp
        assert hashes("more", wider) != warp
        write_map(root, 1)
        assert hashes("off") == stock
        assert not set(hashes("warp")) & set(warp)


@pytest.mark.parametrize("in_place", [False, True], ids=["functional", "in place"])
def test_a_map_before_an_update_that_a_norm_has_joined(root: Path, in_place: bool) -> None:
    found = carried(root, TEXT)
    choices = [choice(("warp", 1.0), ("calm", 1.0))]
    plain, joined = (
        Engine(found.bundle, torch.device("cpu"), torch.float32, 32, 4) for _ in range(2)
    )
    for engine in (plain, joined):
        engine.begin(step([(0, 4, 2)], choices))
    hidden, residual, weight = torch.randn(4, H), torch.randn(4, H), torch.rand(H)
    edited, before = hidden.clone(), hidden.clone()
    plain.update("post_block[1]", edited, residual)
    norm = Norm(weight, 1e-6, Rounding.TORCH)
    expected = add_norm(edited, residual, norm)
    into = (hidden, residual) if in_place else (torch.empty(4, H), torch.empty(4, H))
    joined.update_norm("post_block[1]", hidden, residual, norm, *into)
    for got, wanted in zip(into, expected, strict=True):
        assert (got - wanted).abs().max() <= FLOAT32
    assert in_place or torch.equal(hidden, before)


APART = """\
interv 1
vector v = "v.safetensors"
vector w = "w.safetensors"
program first { steer v at post_block[1] scale 2 when generated }
program turn {
  steer v at post_block[1] scale 0.5 keep norm when generated
  replace v at post_block[1] strength 0.5
  conflict sum
}
program once {
  steer v at post_block[1] scale 0.5 keep norm when generated
  cap w at post_block[1] in [-1, 1]
  ablate v at post_block[1] strength 0.5 gate w threshold 0.5
  conflict sum
}
program read {
  cap w at post_block[1] in [-1, 1]
  steer v at post_block[1] scale 0.5 keep norm
  conflict sum
}
program order {
  steer v at post_block[1] scale 0.5 keep norm
  cap w at post_block[1] in [-1, 1]
}
"""


def test_what_scales_another_program_for_some_readers_only(root: Path) -> None:
    """The second of two would see the first program scaled, and nothing in its place."""
    admission = Admission(carried(root, APART), config())
    after = ("first + once", "first + read", "first + order", "once + read", "turn + order")
    for asked in (*after, "turn + first", "order + first"):
        assert admission.resolve({"intervention": asked}).terms
    with pytest.raises(IntervError) as caught:
        admission.resolve({"intervention": "first + turn"})
    assert str(caught.value) == (
        "error[E419]: program 'turn' cannot come after 'first' at post_block[1]\n"
        "  = in the request: first + turn\n"
        "  = the edits of 'turn' there do not read each other, and more than"
        " one of them scales what 'first' added\n"
        "  = ask for 'turn' first, or let it say 'conflict sequential'"
    )


def test_one_that_scales_is_behind_what_reads_the_same(root: Path) -> None:
    """Every edit of `once` reads what `first` left, and their changes add up."""
    found = carried(root, APART)
    engine = Engine(found.bundle, torch.device("cpu"), torch.float32, 32, 4)
    engine.begin(step([(0, 4, 2)], [choice(("first", 1.0), ("once", 0.5))]))
    hidden = torch.randn(4, H)
    y = hidden.double()
    v, w = (torch.from_numpy(vectors()[name].at(1)).double() for name in "vw")
    y[2:] += 2 * v
    p, u = y @ w / w.norm(), v / v.norm()
    capped = 0.5 * (p.clamp(-1, 1) - p)[:, None] * w / w.norm()
    opened = torch.sigmoid(y @ w - 0.5)[:, None]
    ablated = -0.25 * opened * (y @ u)[:, None] * u
    turned = y + 0.25 * v
    kept = turned * (y.norm(dim=1) / turned.norm(dim=1))[:, None] - y
    kept[:2] = 0
    engine.update("post_block[1]", hidden, None)
    assert (hidden - (y + capped + ablated + kept)).abs().max() <= 10 * FLOAT32
