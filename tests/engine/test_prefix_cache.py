"""The prefix cache: nothing is shared that differs, and everything that does not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

from tests.engine.answer import Answer, Ask
from tests.engine.host import EngineHost
from tests.engine.mixture import unsaid
from tests.engine.models import HIDDEN_SIZE, tiny_model
from tests.engine.pairs import Pair, assert_as_stable_as_stock
from tests.engine.programs import Directions
from tests.engine.sharing import BLOCK, Fed, Sharing

pytestmark = [pytest.mark.engine, pytest.mark.versions]

DOCUMENT = """interv 1
vector v = "v.safetensors"
vector w = "w.safetensors"
vector again = "v.safetensors"
program gen   { steer v at post_block[1] scale 0.5 when generated }
program last  { steer v at post_block[1] scale 0.5 when prompt[-1] }
program early { steer v at post_attn[0] scale 0.5 when prompt[2:8] }
program mid   { steer v at post_block[0] scale 0.5 when prompt[40:46] }
program all {
  ablate w at pre_attn[2] strength 0.5
  steer v at post_block[1] scale 0.25
}
program ids   { steer w at post_attn[0] when token(70) }
program end   { steer v at post_block[-1] scale 2 }
program gated {
  steer v at post_block[1] scale 0.5 when prompt[40:46] gate w at pre_attn[1] sharpness 0.5
  cap   w at post_block[2] in [-0.2, 0.2] when prompt[40:46] gate v sharpness 0.5
}
program same  { steer again at post_block[0] scale 0.5 when prompt[40:46] }
program twice { steer v at post_block[0] when prompt[40:46] }
program front { steer v at pre_attn[1] scale 0.5 when prompt[40:46] }
program renamed {
  cap   w     at post_block[2] in [-0.2, 0.2] when prompt[40:46] gate again sharpness 0.5
  steer again at post_block[1] scale 0.5 when prompt[40:46] gate w at pre_attn[1] sharpness 0.5
}
program keen {
  steer v at post_block[1] scale 0.5 when prompt[40:46] gate w at pre_attn[1] sharpness 0.6
  cap   w at post_block[2] in [-0.2, 0.2] when prompt[40:46] gate v sharpness 0.5
}
program bare {
  steer v at post_block[1] scale 0.5 when prompt[40:46]
  cap   w at post_block[2] in [-0.2, 0.2] when prompt[40:46]
}
program late {
  steer v at post_block[0] scale 0.5 when prompt[40:46]
  steer w at post_block[-1] when prompt[40:46] gate v at post_block[0]
}
"""
INLINE = "interv 1\nprogram mine { steer v at post_block[0] scale 0.5 when prompt[40:46] }"
PROGRAMS = ("off", "gen", "last", "early", "mid", "all", "ids", "end", "gated")
# Prompts that begin alike for 100, 64 and 40 tokens; token 70 stands at position 65.
BASE = tuple(5 + i for i in range(100))
OTHER = tuple(300 + i for i in range(60))
MANY = (BASE, BASE[:64], BASE[:40] + OTHER)
PROMPTS = {
    "traced": MANY,
    "inductor": MANY,
    "B": (BASE[:70], BASE[:50] + OTHER[:20]),
}
TOKENS = 2
# Far more than the answers to one request on two engines differ by.
MOVED = 1e-3


def ask(prompt: Sequence[int], program: str | None = "off", tokens: int = TOKENS) -> Ask:
    # Whoever asks for a prompt's log-probabilities has it computed, and reads no cache.
    return Ask(list(prompt), program, tokens, sampling={"prompt_logprobs": None})


@dataclass
class Rig:
    flavour: str
    stock: EngineHost
    edited: EngineHost
    sharing: Sharing

    def after(self, engine: EngineHost, before: Sequence[Ask], one: Ask) -> Answer:
        """Return the answer to a request after others, on a cache that was empty before them."""
        engine.call("empty_cache")
        return engine.alone([*before, one])[-1]

    def check(self, cases: Sequence[tuple[list[Ask], Ask]], what: str) -> list[int]:
        """Assert that what ran before changes no answer; return how much of it was found."""
        fresh, after = [], []
        for before, one in cases:
            self.edited.call("empty_cache")
            *earlier, answer = self.edited.alone([*before, one])
            ran = [Fed.whole(a, b.ids) for a, b in zip(before, earlier, strict=True)]
            assert answer.cached == self.sharing.cached(ran, one), (before, one)
            fresh.append(self.after(self.edited, [], one))
            after.append(answer)
        assert_as_stable_as_stock(self.plain(cases), Pair(fresh, after), what)
        return [one.cached or 0 for one in after]

    def plain(self, cases: Sequence[tuple[list[Ask], Ask]]) -> Pair:
        """Run the prompts of all cases on stock vLLM, each way once."""
        fresh, after = {}, {}
        for before, one in cases:
            plain = unsaid([*before, one])
            key = str(plain)
            if key not in after:
                fresh[key] = self.after(self.stock, [], plain[-1])
                after[key] = self.after(self.stock, plain[:-1], plain[-1])
        return Pair(list(fresh.values()), list(after.values()))


@pytest.fixture(
    scope="module",
    params=[
        "traced",
        pytest.param("B", marks=pytest.mark.slow),
        pytest.param("inductor", marks=pytest.mark.slow),
    ],
)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("prefix_cache")
    Directions.random(HIDDEN_SIZE, 5.0).save(folder)
    document = folder / "prefix.interv"
    document.write_text(DOCUMENT)
    model = tiny_model("llama")
    options = {"enable_prefix_caching": True, "block_size": BLOCK}
    with (
        EngineHost(request.param, model, **options) as stock,
        EngineHost(request.param, model, [document], inline=True, **options) as edited,
    ):
        yield Rig(request.param, stock, edited, Sharing(document))


def test_every_pair_of_requests(rig: Rig) -> None:
    """Whatever the first one was, the second is answered as on an empty cache."""
    asks = [ask(prompt, one) for one in PROGRAMS for prompt in PROMPTS[rig.flavour]]
    cold = {str(one): rig.after(rig.edited, [], one) for one in asks}
    fresh, after, found = [], [], set()
    for first, second in itertools.product(asks, asks):
        rig.edited.call("empty_cache")
        before, answer = rig.edited.alone([first, second])
        expected = rig.sharing.cached([Fed.whole(first, before.ids)], second)
        assert answer.cached == expected, (first, second)
        found.add(expected)
        fresh.append(cold[str(second)])
        after.append(answer)
    longest = max(len(prompt) for prompt in PROMPTS[rig.flavour])
    assert found == {*range(0, longest, BLOCK)}
    plain = unsaid(asks[: len(PROMPTS[rig.flavour])])
    stock = rig.plain([([one], other) for one in plain for other in plain])
    assert_as_stable_as_stock(stock, Pair(fresh, after), "an empty cache and one that was used")


def test_every_program_moves_the_answer(rig: Rig) -> None:
    """So that a stale block would be seen in it."""
    prompt = BASE[:70]
    answers = [rig.after(rig.edited, [], ask(prompt, one)) for one in PROGRAMS]
    for one, other in itertools.combinations(answers, 2):
        assert one.distance(other) > MOVED


def test_content_decides(rig: Rig) -> None:
    """Not names: what is said in another way shares, and what is scaled does not."""
    whole = (len(BASE) - 1) // BLOCK * BLOCK
    shared = {
        ("mid", "same"): whole,
        ("mid", INLINE): whole,
        (INLINE, "same"): whole,
        ("mid*2", "twice"): whole,
        ("twice*0.5", "mid"): whole,
        ("mid", "twice"): BLOCK,
        ("mid", "mid*2"): BLOCK,
        ("mid*-1", "mid"): BLOCK,
        ("mid*0", "off"): whole,
        ("mid + gen", "gen + mid"): whole,
        ("mid + end", "mid"): whole,
        ("mid + last", "mid"): 3 * BLOCK,
        ("early + mid", "early"): BLOCK,
        # What a gate weighs with, reads, and whether what it weighs is seen.
        ("gated", "renamed"): whole,
        ("gated", "keen"): BLOCK,
        ("gated", "bare"): BLOCK,
        ("gated*2", "gated"): BLOCK,
        ("gated*0", "off"): whole,
        ("gated + mid", "mid + gated"): whole,
        ("gated + front", "front + gated"): BLOCK,
        ("late", "mid"): whole,
    }
    cases = [([ask(BASE, a)], ask(BASE, b)) for a, b in shared]
    assert rig.check(cases, "the same content and other content") == list(shared.values())


def test_a_second_turn(rig: Rig) -> None:
    """It contains the first turn's prompt and answer, which is prompt now."""
    first = [ask(BASE[:90], one, tokens=8) for one in ("off", "gen", "all")]
    cases = []
    for one in first:
        (answer,) = rig.edited.alone([one])
        history = (*one.prompt, *answer.ids, *OTHER[:20])
        cases += [([one], ask(history, program)) for program in PROGRAMS]
    found = dict.fromkeys(PROGRAMS, ())
    for (_, second), cached in zip(cases, rig.check(cases, "a turn after another"), strict=True):
        found[second.program] += (cached,)
    assert found == {
        # By what the first turn had: off, gen, all.
        "off": (96, 64, 0),
        "gen": (96, 64, 0),
        "last": (96, 64, 0),
        "early": (0, 0, 0),
        "mid": (32, 32, 0),
        "all": (0, 0, 96),
        "ids": (64, 64, 0),
        "end": (96, 64, 0),
        "gated": (32, 32, 0),
    }


def test_salts_keep_tenants_apart(rig: Rig) -> None:
    one, same, other, none = (
        replace(ask(BASE[:70], "mid"), salt=salt) for salt in ("a", "a", "b", None)
    )
    cases = [([one], same), ([one], other), ([one], none), ([none], one), ([one, other], same)]
    assert rig.check(cases, "salted and not") == [64, 0, 0, 0, 64]


def test_prompts_in_pieces(rig: Rig) -> None:
    """A block is cached when its last token is computed, whatever step that is."""
    asks = [ask(prompt, one) for one in ("off", "mid") for prompt in PROMPTS[rig.flavour]]
    pairs = [(rig.edited, asks), (rig.stock, unsaid(asks[: len(PROMPTS[rig.flavour])]))]
    edited, stock = (_in_pieces(rig, *one) for one in pairs)
    assert_as_stable_as_stock(stock, edited, "whole prompts and pieces of 24")


def _in_pieces(rig: Rig, engine: EngineHost, asks: Sequence[Ask]) -> Pair:
    # A prompt is cut only where somebody else runs.
    company = Ask([3], tokens=8, sampling={"prompt_logprobs": None})
    cold = [rig.after(engine, [], one) for one in asks]
    fresh, after = [], []
    engine.call("chunk", 24)
    for (i, first), second in itertools.product(enumerate(asks), asks):
        engine.call("empty_cache")
        _, before = engine.answers([company, first])
        assert engine.seen().chunks == -(-len(first.prompt) // 24)
        _, answer = engine.answers([company, second])
        ran = [Fed.whole(first, before.ids)]
        assert answer.cached == rig.sharing.cached(ran, second), (first, second)
        fresh += [cold[i], cold[asks.index(second)]]
        after += [before, answer]
    engine.call("chunk", 0)
    return Pair(fresh, after)


def test_requests_that_still_run(rig: Rig) -> None:
    """What a running request has computed is found by one that comes now, and no more."""
    together, alone, found = [], [], []
    for program in ("off", "gen", "mid", "all"):
        first = ask(BASE[:62], program, tokens=6)
        (answer,) = rig.edited.alone([first])
        # The first has 62 + 4 tokens by then, and the second begins with 65 of them.
        history = (*first.prompt, *answer.ids[:3], *OTHER[:30])
        for one in ("off", "gen", "last", "mid", "all"):
            second = replace(ask(history, one), arrives=4)
            ran, answer = _on_empty(rig.edited, [first, second])
            so_far = Fed(first, (*first.prompt, *ran.ids)[:66])
            assert answer.cached == rig.sharing.cached([so_far], second), (first, second)
            found.append(answer.cached)
            together += [ran, answer]
            alone += [rig.after(rig.edited, [], each) for each in (first, second)]
    assert {*found} == {0, 32, 64}
    plain = unsaid([first, second])
    stock = Pair([rig.after(rig.stock, [], one) for one in plain], _on_empty(rig.stock, plain))
    assert_as_stable_as_stock(stock, Pair(alone, together), "alone and while another one runs")


def test_requests_that_begin_in_one_step(rig: Rig) -> None:
    """The second reads blocks that are computed in the same pass."""
    together, alone = [], []
    for pair in itertools.product(("off", "gen", "last", "mid", "end"), repeat=2):
        first, second = (ask(BASE, one) for one in pair)
        ran, answer = _on_empty(rig.edited, [first, second])
        whole = Fed(first, BASE)
        assert (ran.cached, answer.cached) == (0, rig.sharing.cached([whole], second)), pair
        together += [ran, answer]
        alone += [rig.after(rig.edited, [], one) for one in (first, second)]
    plain = unsaid([first, second])
    stock = Pair([rig.after(rig.stock, [], one) for one in plain], _on_empty(rig.stock, plain))
    assert_as_stable_as_stock(stock, Pair(alone, together), "alone and in one step")


def _on_empty(engine: EngineHost, asks: Sequence[Ask]) -> list[Answer]:
    engine.call("empty_cache")
    return engine.answers(asks)


def test_an_unedited_request_is_cached_as_on_stock_vllm(rig: Rig) -> None:
    for first, second in itertools.product(MANY, MANY):
        said = [rig.after(rig.edited, [ask(first)], ask(second)), *_pair(rig, first, second)]
        assert len({one.cached for one in said}) == 1
        assert said[0] == said[1] == said[2]


def _pair(rig: Rig, first: Sequence[int], second: Sequence[int]) -> list[Answer]:
    plain = [ask(one, None) for one in (first, second)]
    return [rig.after(engine, plain[:1], plain[1]) for engine in (rig.stock, rig.edited)]
