"""A request whose stream becomes infinite or NaN ends with an error, and no other one notices.

The cache has few blocks, so that what one request wrote is soon another one's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.engine.answer import Answer, Ask
from tests.engine.host import EngineHost
from tests.engine.models import HIDDEN_SIZE, VOCABULARY, tiny_model

pytestmark = [pytest.mark.engine, pytest.mark.versions]

# What one statement adds is a number of the engine's type, and what two of them add is not: the
# entries of v are 1.
DOCUMENT = """interv 1
vector v = "v.safetensors"
vector w = "w.safetensors"
adapter low = "low.safetensors"
program joy { steer v at post_block[1]  steer v at post_block[2] }
program late {
  steer v at post_block[1] when generated[2:]
  steer v at post_block[2] when generated[2:]
}
program hidden {
  steer v at post_block[1] scale LARGE
  steer v at post_block[2] scale LARGE
  replace w at post_block[3]
}
program gated {
  steer v at post_block[1] scale LARGE gate w at post_block[0] threshold -1000
  steer v at post_block[2] scale LARGE gate w at post_block[0] threshold -1000
}
program adapted { apply low at post_block[1] scale LARGE }
program wide { steer w at post_block[1] }
program calm { steer w at post_block[1] scale 0.1  ablate w at post_block[2] }
sink rows = memory()
program seen {
  steer v at post_block[1] scale LARGE
  steer v at post_block[2] scale LARGE
  capture at post_block[2] tokens prompt to rows
}
"""
INLINE = """interv 1
program own { steer v at post_block[1] scale LARGE  steer v at post_block[2] scale LARGE }
"""
# LARGE, and the largest value as errors have it.
TYPES = {"float32": ("3e38", "3.4e+38"), "float16": ("5e4", "6.55e+04")}
SIZES = {"num_gpu_blocks_override": 10, "block_size": 32, "max_model_len": 96, "max_num_seqs": 4}
RUNS = [("traced", "float32"), ("traced", "float16"), ("B", "float32")]
WIDE = [("inductor", "float32"), ("inductor", "bfloat16"), ("inductor", "float16")]


def write_document(folder: Path, large: str, more: str = "") -> Path:
    rng = np.random.default_rng(5)
    save_file({"v": np.ones(HIDDEN_SIZE, np.float32)}, folder / "v.safetensors")
    save_file({"w": rng.normal(size=HIDDEN_SIZE).astype(np.float32)}, folder / "w.safetensors")
    read, write = rng.normal(size=(2, 3, HIDDEN_SIZE)).astype(np.float32)
    parts = {"read": read, "bias": np.ones(3, np.float32), "write": write}
    save_file(parts, folder / "low.safetensors")
    path = folder / "document.interv"
    path.write_text(DOCUMENT.replace("LARGE", large) + more)
    return path


class Rig:
    """An engine, and what it answered before anything went wrong."""

    def __init__(self, engine: EngineHost, dtype: str, folder: Path) -> None:
        self.engine, self.dtype = engine, dtype
        self.w = load_file(folder / "w.safetensors")["w"]
        self.large, self.largest = TYPES.get(dtype, ("3e38", "3.39e+38"))
        rng = np.random.default_rng(3)
        self.prompts = [rng.integers(3, VOCABULARY, n).tolist() for n in (5, 18, 33, 47)]
        self.long = rng.integers(3, VOCABULARY, 70).tolist()
        self._salts = map(str, count())
        self.clean = self.answers()

    def answers(self) -> list[Answer]:
        """Return what requests answer that find nothing in the prefix cache, one by one."""
        said = [(None, "off"), ("calm", "calm")]
        asks = [
            Ask(prompt, program, 6, salt=next(self._salts))
            for prompt in self.prompts
            for _, program in said
        ]
        return self.engine.alone(asks)

    def failing(self, program: str, tokens: int = 8) -> Ask:
        asked = program.replace("LARGE", self.large)
        return Ask(self.long, asked, tokens, salt=next(self._salts))

    def why(self, asked: str) -> str:
        return (
            "error[E590]: the residual stream of this request became infinite or not a number\n"
            f"  = it asked for {asked}\n"
            f"  = the largest value of {self.dtype} is {self.largest}\n"
            "  = ask for a smaller multiplier, or for an edit with a smaller scale"
        )


def rigged(flavour: str, dtype: str, folder: Path) -> Iterator[Rig]:
    document = write_document(folder, TYPES.get(dtype, ("3e38",))[0])
    sizes = {**SIZES, "dtype": dtype}
    with EngineHost(flavour, tiny_model("llama"), [document], inline=True, **sizes) as engine:
        yield Rig(engine, dtype, folder)


@pytest.fixture(scope="module", params=RUNS, ids="-".join)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    yield from rigged(*request.param, tmp_path_factory.mktemp("nonfinite"))


def asked(rig: Rig) -> dict[str, str]:
    """Return what fails, and how its error says it."""
    joy, late = (f"{name}*{float(rig.large)!r}" for name in ("joy", "late"))
    named = {one: f"'{one}*1.0'" for one in ("hidden", "gated", "adapted", "seen")}
    return {joy: f"'{joy}'", late: f"'{late}'", **named, INLINE: "an inline program"}


def check(rig: Rig) -> None:
    for program, said in asked(rig).items():
        (answer,) = rig.engine.answers([rig.failing(program)])
        assert answer.failed == rig.why(said)
        assert answer.ended == "error"
        # What was answered before the stream was lost is the answer of a finite stream.
        assert len(answer.ids) == (3 if program.startswith("late") else 0)
        assert rig.answers() == rig.clean


def test_it_ends_with_an_error_and_later_answers_are_the_same(rig: Rig) -> None:
    check(rig)


def test_requests_of_the_same_batch_answer_the_same(rig: Rig) -> None:
    joy, *_ = asked(rig)
    others = [Ask(p, one, 6) for p, one in zip(rig.prompts, ("off", "calm", "off"), strict=False)]

    def beside(first: Ask) -> list[Answer]:
        salt = next(rig._salts)
        return rig.engine.answers([first, *(replace(one, salt=salt) for one in others)])[1:]

    # A request that ends in the same step for another reason.
    expected = beside(replace(rig.failing("calm"), tokens=1))
    assert beside(rig.failing(joy)) == expected


def test_the_same_request_again_fails_again(rig: Rig) -> None:
    """What it wrote is not found as a cached prefix."""
    joy, late, *_ = asked(rig)
    for program in (joy, late):
        ask = rig.failing(program)
        answers = rig.engine.alone([ask, ask, ask])
        assert {one.failed for one in answers} == {rig.why(f"'{program}'")}
    assert rig.answers() == rig.clean


def test_all_samples_of_a_request_fail(rig: Rig) -> None:
    joy, *_ = asked(rig)
    sampling = {"n": 2, "temperature": 1.0, "seed": 7, "prompt_logprobs": None}
    ((first, second),) = rig.engine.ask([replace(rig.failing(joy), sampling=sampling)])
    assert first.failed == second.failed == rig.why(f"'{joy}'")
    assert (first.ended, second.ended) == ("error", "error")


def test_captured_rows_of_it_say_why_they_are_not_to_be_used(rig: Rig) -> None:
    ((result,),) = rig.engine.call("capture_results", [rig.failing("seen")])
    assert (result.status, result.error) == ("error", rig.why("'seen*1.0'"))
    assert rig.answers() == rig.clean


def test_what_is_certain_to_overflow_is_refused(rig: Rig) -> None:
    large = {"float32": 2e38, "float16": 6e4}[rig.dtype]
    peak = float(np.abs(rig.w).max())
    _, text = rig.engine.call("refusal", f"wide*{large!r}")
    assert text == (
        f"error[E105]: 'wide*{large:g}' adds {large * peak:.3g} to an entry of the residual "
        "stream, which is too large\n"
        f"  = the largest value of {rig.dtype} is {rig.largest}\n"
        "  = ask for a smaller multiplier, or write a smaller scale"
    )


def test_compressed_requests_answer_the_same(tmp_path: Path) -> None:
    """What is packed into a block that an edit wrote is read first, and zeros lie behind it."""
    document = write_document(tmp_path, "3e38", "kv r1kv { budget = 40 buffer = 24 }\n")
    sizes = {"num_gpu_blocks_override": 14, "block_size": 32, "max_model_len": 256}
    rng = np.random.default_rng(4)
    prompts = [rng.integers(3, VOCABULARY, n).tolist() for n in (70, 100)]
    salts = map(str, count())

    def answers(engine: EngineHost, first: Ask) -> list[Answer]:
        salt = next(salts)
        both = [Ask(one, said, 12, salt=salt) for one in prompts for said in ("off", "calm")]
        found = engine.alone(both)
        together = engine.answers([replace(first, salt=salt), *(replace(one) for one in both[:1])])
        return found + together[1:]

    with EngineHost("traced", tiny_model("llama"), [document], **sizes) as engine:
        clean = answers(engine, Ask(prompts[1], "calm", 8))
        for program in ("joy*3e38", "late*3e38", "gated"):
            (failed,) = engine.alone([Ask(prompts[0], program, 12)])
            assert failed.failed is not None
            assert answers(engine, Ask(prompts[1], "calm", 8)) == clean


@pytest.mark.slow
@pytest.mark.parametrize(("flavour", "dtype"), WIDE, ids=["-".join(one) for one in WIDE])
def test_a_thousand_later_answers_are_the_same(flavour: str, dtype: str, tmp_path: Path) -> None:
    for rig in rigged(flavour, dtype, tmp_path):
        joy, *_ = asked(rig)
        for _ in range(-(-1000 // len(rig.clean))):
            (lost,) = rig.engine.answers([rig.failing(joy)])
            # Inductor keeps the stream in float32 between blocks, where this one is finite.
            finite = (flavour, dtype) == ("inductor", "float16")
            assert lost.failed == (None if finite else rig.why(f"'{joy}'"))
            assert rig.answers() == rig.clean


@pytest.mark.slow
def test_stock_vllm_lets_a_model_that_overflows_reach_others(tmp_path: Path) -> None:
    """Without the plugin: the embedding of one token is beyond what the next norm can square."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model("llama"))
    model.model.embed_tokens.weight.data[7] = float("inf")
    model.save_pretrained(tmp_path)
    prompts = [list(range(10, 10 + n)) for n in (5, 18, 33)]
    with EngineHost("traced", tmp_path, plugins=False, **SIZES) as engine:
        clean = engine.alone([Ask(one) for one in prompts])
        for index in range(6):
            greedy = {"logprobs": None, "prompt_logprobs": None}
            bad = Ask([7, *range(20 + index, 90 + index)], tokens=1, sampling=greedy)
            engine.call("capture_results", [bad])
        salted = [replace(one, salt="other") for one in (Ask(p) for p in prompts)]
        assert engine.alone(salted) != clean
