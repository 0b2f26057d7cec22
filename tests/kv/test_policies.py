"""Which tokens a policy keeps, against the formulas head by head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from interv.document.document import Document
from interv.errors import IntervError
from interv.kv.policy import R1KV, Policy, make_policy
from interv.kv.scoring import TILE, keep_best, redundancy
from interv.kv.settings import KvSettings, settings_of
from interv.load import load_text
from tests.kv import reference
from tests.kv.reference import Numbers, kept

# Layers, query heads, kv heads, tokens, head size, budget, window, kernel.
SHAPES = [
    (2, 9, 3, 192, 64, 128, 8, 7),
    (1, 4, 4, 100, 32, 17, 8, 5),
    (3, 8, 2, 80, 16, 64, 16, 1),
    (2, 6, 1, 257, 48, 256, 8, 7),
    (1, 2, 2, 33, 8, 9, 1, 3),
    (2, 12, 4, 321, 32, 64, 4, 13),
]


def settings(text: str) -> KvSettings:
    found = settings_of(load_text(f"interv 1\nkv {text}\n"))
    assert found is not None
    return found


def drawn(shape: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return keys and queries; the keys repeat one another here and there, as those of text do."""
    layers, heads, groups, length, size, _, window, _ = shape
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(layers, groups, length, size, generator=generator)
    again = torch.randint(length, (length // 2,), generator=generator)
    keys[:, :, again] += 2 * keys[:, :, again.flip(0)]
    return keys, torch.randn(layers, window, heads, size, generator=generator) * 2


def options(shape: tuple[int, ...]) -> str:
    *_, budget, window, _ = shape
    return f"budget = {budget} buffer = 128 window = {window}"


def found(policy: Policy, keys: torch.Tensor, queries: torch.Tensor) -> list[list[list[int]]]:
    indices: list[list[list[int]]] = policy.keep(keys, queries, keys.shape[-1] ** -0.5).tolist()
    return indices


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("scope", ["per_head", "per_layer"])
def test_r1kv_keeps_what_the_formulas_say(
    shape: tuple[int, ...], weight: float, scope: str
) -> None:
    keys, queries = drawn(shape, 7)
    text = f"{options(shape)} kernel = {shape[-1]} lambda = {weight} scope = {scope}"
    policy = make_policy(settings(f"r1kv {{ {text} threshold = 0.6 }}"))
    numbers = Numbers(shape[5], shape[6], shape[7], 0.6, weight, scope == "per_layer")
    wanted = [kept(keys[i], queries[i], numbers) for i in range(shape[0])]
    assert found(policy, keys, queries) == wanted


@pytest.mark.parametrize("shape", SHAPES)
def test_snapkv_is_r1kv_of_lambda_one(shape: tuple[int, ...]) -> None:
    keys, queries = drawn(shape, 8)
    text = f"{options(shape)} kernel = {shape[-1]}"
    snap = found(make_policy(settings(f"snapkv {{ {text} }}")), keys, queries)
    numbers = Numbers(shape[5], shape[6], shape[7], weight=1.0)
    assert snap == [kept(keys[i], queries[i], numbers) for i in range(shape[0])]
    r1kv = make_policy(settings(f"r1kv {{ {text} lambda = 1 }}"))
    assert found(r1kv, keys, queries) == snap


@pytest.mark.parametrize("sinks", [0, 4, 7])
def test_streaming_keeps_the_first_and_the_last(sinks: int) -> None:
    shape = SHAPES[0]
    keys, queries = drawn(shape, 9)
    policy = make_policy(settings(f"streaming {{ {options(shape)} sinks = {sinks} }}"))
    numbers = Numbers(shape[5], sinks=sinks)
    assert found(policy, keys, queries) == [kept(keys[0], queries[0], numbers)] * shape[0]


def test_half_precision_is_computed_in_float32() -> None:
    keys, queries = (one.bfloat16() for one in drawn(SHAPES[0], 3))
    policy = make_policy(settings(f"r1kv {{ {options(SHAPES[0])} }}"))
    assert found(policy, keys, queries) == found(policy, keys.float(), queries.float())


@pytest.mark.parametrize("tile", [1, 4000, 100_000, 10_000_000])
def test_tiles_change_nothing_that_counts(tile: int) -> None:
    keys = drawn(SHAPES[0], 4)[0]
    whole = redundancy(keys.double(), 0.5, 1 << 40)
    torch.testing.assert_close(redundancy(keys, 0.5, tile), whole, atol=1e-8, rtol=1e-6)


def test_a_row_without_repetition_loses_its_first_column() -> None:
    """Source: R-KV's reference takes index 0 where no cosine is above the threshold."""
    keys = torch.tensor([[1.0, 0.3], [0.3, 1.0], [-1.0, 0.9]])
    unit = keys / keys.norm(dim=-1, keepdim=True)
    cosine = unit @ unit.T
    assert cosine[0, 1] > 0.5 > cosine[1, 2] > cosine[0, 2]
    # Rows 0 and 1 lose each other; row 2 repeats nothing, and loses column 0.
    columns = torch.stack([torch.tensor(0.0), cosine[2, 1], cosine[0, 2] + cosine[1, 2]])
    expected = torch.softmax(columns / 3, -1)
    torch.testing.assert_close(redundancy(keys[None, None], 0.5)[0, 0], expected)


def test_the_earlier_of_equal_tokens_stays() -> None:
    scores = torch.tensor([[[1.0, 2.0, 1.0, 1.0, 2.0]]])
    assert keep_best(scores, 5, 2).tolist() == [[[0, 1, 4, 5, 6]]]


class Newest(Policy):
    needs_queries = False

    def score(self, keys: torch.Tensor, queries: torch.Tensor | None, scale: float) -> torch.Tensor:
        batch, groups, length, _ = keys.shape
        older = torch.arange(length - self.settings.window, dtype=torch.float32)
        return older.expand(batch, groups, -1)


def test_the_base_class_does_all_but_the_scores() -> None:
    keys, queries = drawn(SHAPES[0], 5)
    policy = Newest(KvSettings(budget=128))
    assert found(policy, keys, queries)[0][0] == list(range(64, 192))
    with pytest.raises(TypeError, match="abstract"):
        Policy(KvSettings())  # type: ignore[abstract]


def test_a_policy_that_is_not_there() -> None:
    with pytest.raises(IntervError) as refused:
        make_policy(KvSettings("r2kv"))
    assert str(refused.value) == (
        "error[E296]: 'r2kv' is not a KV policy\n  = policies here: r1kv, snapkv, streaming"
    )


MODULE = """\
import torch
from interv.kv.policy import Policy

class Newest(Policy):
    needs_queries = False

    def score(self, keys, queries, scale):
        batch, groups, length, _ = keys.shape
        older = torch.arange(length - self.settings.window, dtype=torch.float32)
        return older.expand(batch, groups, -1) * self.settings.option("sign")

class Nothing:
    pass
"""


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package that brings a policy, and something that is none."""
    (tmp_path / "brought_policies.py").write_text(MODULE)
    said = tmp_path / "brought_policies-1.0.dist-info"
    said.mkdir()
    (said / "METADATA").write_text("Metadata-Version: 2.1\nName: brought-policies\nVersion: 1.0\n")
    (said / "entry_points.txt").write_text(
        "[interv.kv]\nnewest = brought_policies:Newest\nnothing = brought_policies:Nothing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("brought")
def test_another_package_may_bring_a_policy() -> None:
    keys, queries = drawn(SHAPES[0], 5)
    policy = make_policy(settings("newest { budget = 128 sign = -1 }"))
    assert found(policy, keys, queries)[0][0] == [*range(120), *range(184, 192)]
    with pytest.raises(IntervError) as refused:
        settings("newset { }")
    assert str(refused.value).splitlines()[-2:] == [
        "  = policies here: r1kv, snapkv, streaming, newest, nothing",
        "  = did you mean 'newest'?",
    ]
    with pytest.raises(IntervError) as refused:
        make_policy(settings("nothing { }"))
    assert str(refused.value) == (
        "error[E296]: 'brought_policies:Nothing' is not a KV policy\n"
        "  = the entry point 'nothing' of group 'interv.kv' names it\n"
        "  = derive it from interv.kv.policy.Policy"
    )


def test_the_default_policy_is_the_papers() -> None:
    document = load_text("interv 1\nkv r1kv { }\n")
    assert isinstance(document, Document)
    made = settings("r1kv { }")
    assert (made.budget, made.buffer, made.window, made.scope) == (512, 128, 8, "per_head")
    assert dict(made.own) == {"lambda": 0.1, "kernel": 7, "threshold": 0.5}
    assert isinstance(make_policy(made), R1KV)


@pytest.mark.parametrize("tile", [3000, TILE])
@pytest.mark.parametrize("threshold", [-0.5, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("shared", [0.0, 0.7, 1.0, 4.0])
def test_redundancy_is_that_of_the_whole_matrix(shared: float, threshold: float, tile: int) -> None:
    """However alike keys are, so that they are found in the first columns, in later ones, never."""
    torch.manual_seed(5)
    keys = torch.randn(2, 2, 150, 16) + shared * torch.randn(2, 2, 1, 16)
    wanted = torch.stack([reference.redundancy(one, threshold) for one in keys.flatten(0, 1)])
    found = redundancy(keys, threshold, tile).flatten(0, 1)
    torch.testing.assert_close(found, wanted, atol=1e-8, rtol=1e-6)
