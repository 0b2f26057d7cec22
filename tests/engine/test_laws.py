"""What must be equal to the last bit, and what must not be equal at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interv.document.spec import Ablate, Cap, Program, SiteRef, Spec, Steer
from tests.engine.host import EngineHost
from tests.engine.models import HIDDEN_SIZE, tiny_model
from tests.engine.programs import VECTORS, Directions, program, save_document
from tests.tolerances import ENGINE_LOGPROB

pytestmark = pytest.mark.engine

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [100, 200, 300, 400], [17] * 40]
EVERYWHERE = SiteRef(name="post_block", layers=("*",))
IDLE = {
    # What the compiler can prove idle leaves no trace in the graph …
    "dropped": (
        Steer(vector="v", at=EVERYWHERE, scale=0.0),
        Ablate(vector="v", at=EVERYWHERE, strength=0.0),
    ),
    # … what only the numbers can say is spliced, runs, and writes nothing.
    "wide_bounds": (Cap(vector="w", at=EVERYWHERE, low=-1e9, high=1e9),),
}


@pytest.fixture(scope="module")
def llama() -> Path:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the vectors."""
    made = tmp_path_factory.mktemp("laws")
    Directions.random(HIDDEN_SIZE, norm=5.0).save(made)
    return made


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("flavour", "dtype"),
    [
        ("inductor", "bfloat16"),
        pytest.param("inductor", "float32", marks=SLOW),
        pytest.param("B", "float32", marks=SLOW),
        pytest.param("B", "bfloat16", marks=SLOW),
    ],
)
def test_idle_equals_stock_bit_for_bit(llama: Path, folder: Path, flavour: str, dtype: str) -> None:
    with EngineHost(flavour, llama, plugins=False, dtype=dtype) as stock:
        expected = stock.generate(PROMPTS)
        assert not stock.call("facts")["patched"]
    with EngineHost(flavour, llama, dtype=dtype) as installed:
        assert installed.generate(PROMPTS) == expected
        assert not installed.call("facts")["patched"]
    for name, statements in IDLE.items():
        one = Program(name="p", statements=statements)
        spec = Spec(vectors=VECTORS, programs=(one,), default="p")
        path = save_document(spec, folder, f"{name}.json")
        with EngineHost(flavour, llama, files=[path], dtype=dtype) as idle:
            assert idle.generate(PROMPTS) == expected, name
            assert idle.call("facts")["patched"] == (name == "wide_bounds")


def test_sites_are_where_they_are_said_to_be(llama: Path, folder: Path) -> None:
    names = ("pre_attn_2", "post_block_1", "post_attn_2", "post_block_2")
    programs = [program("steer", n[:-2], int(n[-1]), n) for n in names]
    spec = Spec(vectors=VECTORS, programs=tuple(programs), default="pre_attn_2")
    path = save_document(spec, folder, "where.json")
    with EngineHost("inductor", llama, files=[path]) as engine:
        answers = {n: engine.generate(PROMPTS, program=n) for n in names}
    assert answers["pre_attn_2"] == answers["post_block_1"]
    for middle, end in zip(answers["post_attn_2"], answers["post_block_2"], strict=True):
        assert middle.distance(end) > ENGINE_LOGPROB


def test_an_eager_engine_is_edited_too(llama: Path, folder: Path) -> None:
    spec = Spec(vectors=VECTORS, programs=(program("mixed", "post_block", 1, "p"),), default="p")
    path = save_document(spec, folder, "eager.json")
    with EngineHost("inductor", llama, files=[path], enforce_eager=True) as eager:
        answers = eager.generate(PROMPTS)
    with EngineHost("traced", llama, files=[path]) as compiled:
        for one, other in zip(answers, compiled.generate(PROMPTS), strict=True):
            assert one.ids == other.ids
            assert one.distance(other) < ENGINE_LOGPROB


def test_only_a_new_structure_compiles(llama: Path, folder: Path, tmp_path: Path) -> None:
    """Other scales, vectors and kinds reuse every compiled graph; other sites never meet it."""
    cache = {"VLLM_CACHE_ROOT": str(tmp_path / "cache")}

    def run(statement: Steer | Ablate, place: Path) -> tuple[dict[str, Any], object]:
        one = Program(name="p", statements=(statement,))
        path = save_document(Spec(vectors=VECTORS, programs=(one,), default="p"), place)
        with EngineHost("inductor", llama, files=[path], env=cache) as engine:
            return engine.call("facts"), engine.generate(PROMPTS)

    other = tmp_path / "other"
    other.mkdir()
    Directions.random(HIDDEN_SIZE, norm=1.0).save(other)
    at_1, at_2 = (SiteRef(name="post_block", layers=(n,)) for n in (1, 2))
    first, answer = run(Steer(vector="v", at=at_1), folder)
    scaled, scaled_answer = run(Steer(vector="v", at=at_1, scale=3.0), folder)
    swapped, swapped_answer = run(Ablate(vector="w", at=at_1), other)
    moved, moved_answer = run(Steer(vector="v", at=at_2), folder)
    assert (first["compiled"], first["loaded"]) == (1, 0)
    assert (scaled["compiled"], scaled["loaded"]) == (0, 1)
    assert (swapped["compiled"], swapped["loaded"]) == (0, 1)
    assert (moved["compiled"], moved["loaded"]) == (1, 0)
    assert first["hash"] == scaled["hash"] == swapped["hash"] != moved["hash"]
    assert len({str(a) for a in (answer, scaled_answer, swapped_answer, moved_answer)}) == 4
