"""Programs of one request under `conflict joint`: the smallest change after which all caps hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings, strategies as st

from interv.document.document import Document
from interv.document.selectors import holds
from interv.document.spec import Ablate, Statement
from interv.errors import IntervError, each
from interv.load import load_text
from interv.runtime.choice import Choice, choice_in
from interv.runtime.frontend.admission import Admission
from interv.runtime.worker.engine import Engine
from tests.passes.small import H, vectors
from tests.passes.test_joint import Caps, nearest
from tests.runtime.documents import carried, config
from tests.runtime.prefixes import Core, keyed_hashing
from tests.runtime.small import step

# What sweeps in float32 leave open, of streams and bounds of size 1.
JOINT = 1e-4
TEXT = """\
interv 1
vector v = "v.safetensors"
vector w = "w.safetensors"
vector x = "one.safetensors"
vector y = "close.safetensors"
program firm  { cap v at post_block[1] in [1, 1] }
program soft  { cap w at post_block[1] in [-0.25, 0.5]  when generated }
program none  { ablate x at post_block[1]  when prompt[-1] or generated }
program pair  {
  cap w at post_block[1] in [0.5, ]
  cap x at post_block[1] in [, -0.5]
  conflict joint
}
program turns {
  cap w at post_block[1] in [0.5, ]
  cap x at post_block[1] in [, -0.5]
}
program push  { steer w at post_block[1] scale 2  when generated[1:] }
program gated { cap w at post_block[1] in [0, 0]  gate x }
program early { cap w at post_block[1] in [2, 3]  when prompt[0] }
program other { cap v at post_block[1, 2] in [2, ]  when prompt[0] }
program apart { steer w at pre_attn[2] scale 3 gate x at post_block[1] }
program near  { cap y at post_block[1, 2] in [, 9] }
conflict joint
"""
FILES = {"x": "one", "y": "close"}
# Positions of a prompt of 4 and of what is generated after it.
PROMPT, FED = 4, 7


@pytest.fixture(scope="module")
def document() -> Document:
    return load_text(TEXT, "a.interv")


def admission(folder: Path) -> Admission:
    return Admission(carried(folder, TEXT), config())


def edited(
    folder: Path, asked: str, before: torch.Tensor, text: str = TEXT
) -> tuple[torch.Tensor, dict[str, int]]:
    """Return the stream of one request at post_block[1], and the rows counted there."""
    found = carried(folder, text)
    chosen = Admission(found, config()).resolve({"intervention": asked})
    # As it reaches a worker: through the request's parameters.
    params = type("Params", (), {"extra_args": {"intervention": asked, "_interv": chosen.plain()}})
    engine = Engine(found.bundle, torch.device("cpu"), torch.float32, 32, 4)
    engine.begin(step([(0, FED, PROMPT)], [choice_in(params, Choice())]))
    after = before.clone()
    engine.update("post_block[1]", after, None)
    index = [str(table.site) for table in found.bundle.sites].index("post_block[1]")
    rows = dict(zip(found.bundle.counted, engine.counters.rows()[index].tolist(), strict=True))
    return after, {name: n for name, n in rows.items() if n}


def oracle(statements: Sequence[Statement], before: torch.Tensor) -> torch.Tensor | None:
    """Solve the caps that hold for each token by every active set, tried in turn.

    None where those of some token cannot all hold.
    """
    after = before.double().numpy().copy()
    for i in range(len(after)):
        held = [one for one in statements if holds(one.when, i, PROMPT, 0)]
        if not held:
            continue
        rows = np.stack([unit(one.vector) for one in held])
        lows, highs = zip(*map(bounds, held), strict=True)
        change, size = nearest(Caps(rows, np.array(lows), np.array(highs)), after[i : i + 1])
        if not np.isfinite(size).all():
            return None
        after[i] += change[0]
    return torch.from_numpy(after)


def unit(name: str) -> np.ndarray:
    row = vectors()[FILES.get(name, name)].at(1).astype(np.float64)
    return row / np.linalg.norm(row)


def bounds(one: Statement) -> tuple[float, float]:
    if isinstance(one, Ablate):
        return 0.0, 0.0
    low = -math.inf if one.low is None else one.low
    return low, math.inf if one.high is None else one.high


@pytest.mark.parametrize(
    "asked",
    [
        "firm + soft",
        "soft + firm",
        "firm + soft + none",
        "none + pair + firm",
        "pair + firm",
        "soft*2 + firm*3",
        "early + firm + soft",
        "firm",
    ],
)
def test_caps_of_several_programs_are_one_problem(
    folder: Path, document: Document, asked: str
) -> None:
    if "none + pair" in asked:
        with pytest.raises(IntervError, match="E886"):
            admission(folder).resolve({"intervention": asked})
        return
    before = torch.randn(FED, H, generator=torch.Generator().manual_seed(7))
    names = [one.split("*")[0] for one in asked.split(" + ")]
    after, rows = edited(folder, asked, before)
    programs = {one.name: one for one in document.spec.programs}
    expected = oracle([one for name in names for one in programs[name].statements], before)
    assert expected is not None
    assert (after - expected).abs().max() <= JOINT
    # A token of a program counts once for it, whoever it was solved with.
    for name in names:
        takes = [
            i
            for i in range(FED)
            if any(holds(one.when, i, PROMPT, 0) for one in programs[name].statements)
        ]
        assert rows.get(name, 0) <= len(takes)
    assert set(rows) <= set(names)


HEAD = TEXT[: TEXT.index("program")]
WHEN = ("", " when prompt", " when generated", " when prompt[-1]", " when generated[1:]")
clauses = st.tuples(
    st.sampled_from("vwx"), st.sampled_from([-1.0, 0.0, 0.5]), st.sampled_from([0.0, 0.5, None])
)


def statement(vector: str, low: float, wide: float | None, when: str) -> str:
    high = "" if wide is None else f"{low + wide}"
    return f"cap {vector} at post_block[1] in [{low}, {high}]{when}"


@given(
    drawn=st.lists(
        st.tuples(st.sampled_from(WHEN), st.lists(clauses, min_size=1, max_size=2)),
        min_size=2,
        max_size=3,
    ),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40, phases=[Phase.explicit, Phase.generate])
def test_any_caps_hold_at_the_smallest_change_or_are_refused(
    folder: Path, drawn: list[tuple[str, list[tuple[str, float, float | None]]]], seed: int
) -> None:
    bodies = ["  ".join(statement(*one, when) for one in caps) for when, caps in drawn]
    programs = [f"program p{i} {{ {body}  conflict joint }}\n" for i, body in enumerate(bodies)]
    text = f"{HEAD}{''.join(programs)}conflict joint\n"
    statements = [x for one in load_text(text).spec.programs for x in one.statements]
    before = torch.randn(FED, H, generator=torch.Generator().manual_seed(seed))
    expected = oracle(statements, before)
    asked = " + ".join(f"p{i}" for i in range(len(drawn)))
    if expected is None:
        with pytest.raises(IntervError) as caught:
            edited(folder, asked, before, text)
        assert {one.code for one in each(caught.value)} <= {"E414", "E886"}
        return
    after, _ = edited(folder, asked, before, text)
    assert (after - expected).abs().max() <= JOINT


def test_programs_that_do_not_meet_are_as_they_are(folder: Path) -> None:
    one = admission(folder)
    for asked in ("soft + early", "firm + apart", "push + other"):
        assert one.resolve({"intervention": asked}).inline is None
    choice = one.resolve({"intervention": "firm + soft*2"})
    assert choice.inline is not None
    assert choice.terms == (("firm", 1.0), ("soft", 2.0))
    assert choice.key == one.resolve({"intervention": "firm+soft*4"}).key
    assert choice.key != one.resolve({"intervention": "firm + none"}).key


POLICY = "  = the documents say 'conflict joint' for programs of one request"
TAKES = f"{POLICY}: it takes cap and ablate, of strength 1 and without a gate\n"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            "firm + push",
            "error[E883]: an edit of program 'push' (calm.interv:18) meets program 'firm' at"
            " post_block[1], and cannot be solved jointly\n"
            "  = in the request: firm + push\n"
            "  = it is no cap\n"
            f"{TAKES}  = ask for one of them, or have the document say another policy",
        ),
        (
            "firm*0.5 + soft",
            "error[E883]: an edit of program 'firm' (calm.interv:6) meets program 'soft' at"
            " post_block[1], and cannot be solved jointly\n"
            "  = in the request: firm*0.5 + soft\n"
            "  = it has strength 0.5 here\n"
            f"{TAKES}  = ask for one of them, or have the document say another policy",
        ),
        (
            "gated + firm",
            "error[E883]: an edit of program 'gated' (calm.interv:19) meets program 'firm' at"
            " post_block[1], and cannot be solved jointly\n"
            "  = in the request: gated + firm\n"
            "  = it has a gate\n"
            f"{TAKES}  = ask for one of them, or have the document say another policy",
        ),
        (
            "firm + turns",
            "error[E885]: two caps of program 'turns' meet others at post_block[1], and each"
            " other: calm.interv:15 and calm.interv:16\n"
            "  = in the request: firm + turns\n"
            "  = inside a program its own policy holds, by which the first need not hold\n"
            "  = let 'turns' say 'conflict joint' itself",
        ),
        (
            "firm + other",
            "error[E886]: the caps of these programs at post_block[1] cannot all hold: 'firm'"
            " (calm.interv:6) and 'other' (calm.interv:21)\n"
            "  = in the request: firm + other\n"
            "  = calm.interv:6: in [1, 1]\n"
            "  = calm.interv:21: in [2, ]\n"
            "  = ask for fewer of them, or widen a bound",
        ),
        (
            "other + near",
            "error[E887]: directions of these programs at post_block[1, 2] are too close to"
            " dependent: 'other' (calm.interv:21) and 'near' (calm.interv:23)\n"
            "  = in the request: other + near\n"
            "  = the largest |cos| between two of them is 0.999999\n"
            "  = ask for fewer of them, or leave one of the directions out",
        ),
    ],
)
def test_what_is_refused(folder: Path, asked: str, said: str) -> None:
    with pytest.raises(IntervError) as caught:
        admission(folder).resolve({"intervention": asked})
    assert str(caught.value) == said


def test_more_caps_than_are_solved(folder: Path) -> None:
    more = "".join(f"program p{i} {{ cap v at post_block[1] in [, {i + 1}] }}\n" for i in range(13))
    one = Admission(carried(folder, f"{TEXT}{more}"), config())
    asked = " + ".join(f"p{i}" for i in range(13))
    with pytest.raises(IntervError) as caught:
        one.resolve({"intervention": asked})
    assert str(caught.value) == (
        "error[E884]: 13 caps of these programs meet at post_block[1], 12 are possible\n"
        f"  = in the request: {asked}\n"
        "  = the documents say 'conflict joint' for programs of one request\n"
        "  = ask for fewer programs at once"
    )


def test_a_block_is_shared_by_those_that_edit_its_tokens_alike(folder: Path) -> None:
    core, prompt = Core(carried(folder, TEXT)), tuple(range(16))

    def hashes(asked: str) -> list[bytes]:
        return list(core.request(asked, prompt).block_hashes)

    with keyed_hashing():
        alone, both = hashes("firm"), hashes("firm + soft")
        # Of the prompt only 'firm' edits anything, with or without the other.
        assert both == alone
        assert hashes("firm + soft*2") == both
        assert hashes("firm + none") != alone
        assert hashes("firm + none")[:-1] == alone[:-1]
        assert hashes("soft + none")[:-1] == hashes("off")[:-1]
