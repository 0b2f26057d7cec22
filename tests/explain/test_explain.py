"""Golden explains: every example, every policy, every stage; and the rules that all obey."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from interv.compile import Compilation, compile_documents
from interv.document.selectors import selector_text
from interv.document.spec import And, Positions, Token
from interv.document.wording import brief
from interv.errors import IntervError
from interv.explain import SECTIONS, explain, explain_pass, explain_spec
from interv.load import load_document, load_text
from interv.model import ModelFacts, model_facts

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.interv"))
OWN = sorted((HERE / "programs").glob("*.interv"))
SMALL = ModelFacts("small", "SmallForCausalLM", 16, 4)
Golden = Callable[[Path, str], None]


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Explains name documents as they were given: from the root, the same on any machine."""
    monkeypatch.chdir(ROOT)


def made(path: Path, folder: Path) -> Compilation:
    """Compile a document of this folder; its vectors are written on the spot."""
    rng = np.random.default_rng(0)
    for name in ("v", "w"):
        rows = {f"layer.{i}": rng.normal(size=16).astype(np.float32) for i in range(4)}
        save_file(rows, folder / f"{name}.safetensors")
    each = {f"layer.{i}.weight": np.eye(16, dtype=np.float32)[::-1].copy() for i in range(4)}
    save_file(each, folder / "warp.safetensors")
    text = path.read_text(encoding="utf-8")
    return compile_documents([load_text(text, path.name, folder)], SMALL)


def example(path: Path) -> Compilation:
    facts = model_facts("examples/models/smollm2-135m")
    return compile_documents([load_document(path.relative_to(ROOT))], facts)


def rules(text: str) -> None:
    for line in text.splitlines():
        assert len(line) <= 100, line
        assert line == line.rstrip()
        assert "0x" not in line


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples(path: Path, golden: Golden) -> None:
    text = explain(example(path))
    rules(text)
    golden(HERE / "golden" / f"{path.stem}.txt", f"{text}\n")


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_policies(path: Path, golden: Golden, tmp_path: Path) -> None:
    text = explain(made(path, tmp_path))
    rules(text)
    golden(HERE / "golden" / f"{path.stem}.txt", f"{text}\n")


def test_stages_stop_early(tmp_path: Path) -> None:
    found = made(OWN[0], tmp_path)
    whole, heads = explain(found), ("spec", "passes", "graph", "plan", "kernels", "not done")
    sections = {
        stage: [head for head in heads if f"\n{head}" in f"\n{explain(found, stage)}"]
        for stage in SECTIONS
    }
    assert sections == {
        "spec": ["spec"],
        "graph": ["spec", "passes", "graph"],
        "plan": ["spec", "passes", "graph", "plan"],
        "kernels": ["spec", "passes", "graph", "plan", "kernels"],
    }
    assert whole.startswith(explain(found, "plan").rstrip("\n"))


def test_json_says_the_same(tmp_path: Path) -> None:
    found = made(OWN[0], tmp_path)
    data = json.loads(explain(found, form="json"))
    assert list(data) == ["model", "documents", "programs", "plan", "not_done"]
    program = data["programs"][0]
    assert [one["name"] for one in program["passes"]][-2:] == ["drop_dead", "place"]
    assert data["plan"]["launches"] == len(found.bundle.sites)
    assert data["plan"]["contents"] == [list(one) for one in sorted(found.bundle.contents.items())]
    assert list(json.loads(explain(found, "graph", "json"))) == ["model", "documents", "programs"]


@pytest.mark.parametrize("name", ["resolve_conflicts", "fold_adds", "fuse_updates", "place"])
def test_one_pass(name: str, golden: Golden, tmp_path: Path) -> None:
    text = explain_pass(made(HERE / "programs" / "mixed.interv", tmp_path), name)
    rules(text)
    golden(HERE / "golden" / f"mixed.{name}.diff", f"{text}\n")


def test_unknown_pass(tmp_path: Path) -> None:
    with pytest.raises(IntervError) as caught:
        explain_pass(made(OWN[0], tmp_path), "fold_add")
    assert str(caught.value) == (
        "error[E250]: there is no pass 'fold_add'\n"
        "  = passes: resolve_sites, resolve_conflicts, fold_constants, solve_joint, share_reads,"
        " fold_adds, fuse_updates, drop_dead, place\n"
        "  = did you mean 'fold_adds'?"
    )


def test_without_a_model() -> None:
    text = explain_spec([load_document(EXAMPLES[0])])
    assert text.endswith(
        "\n\npasses, graph, plan and what was not done need a model: give --model\n"
    )
    rules(text)


def test_every_example_has_a_golden() -> None:
    stems = {path.stem for path in (*EXAMPLES, *OWN)}
    assert {path.stem for path in (HERE / "golden").glob("*.txt")} == stems


def test_long_names_wrap(tmp_path: Path) -> None:
    name, folder = "n" * 120, tmp_path / ("f" * 90)
    folder.mkdir()
    save_file({"v": np.ones(16, np.float32)}, folder / "v.safetensors")
    text = (
        f'interv 1\nvector {name} = "{folder.name}/v.safetensors"\n'
        f"program {name} {{ steer {name} at post_block[0] when {' or '.join(['prompt[1]'] * 9)} }}"
    )
    found = compile_documents([load_text(text, "long.interv", tmp_path)], SMALL)
    rules(explain(found))
    rules(explain(found, "kernels"))


def test_the_page_shows_a_true_explain() -> None:
    page = (ROOT / "docs/compiler.md").read_text(encoding="utf-8")
    shown = page.split("```text\n")[1].split("```")[0]
    assert shown == (HERE / "golden" / "bureaucrat.txt").read_text(encoding="utf-8")


def test_a_long_list_of_positions_is_cut() -> None:
    listed = Positions(phase="prompt", items=tuple(range(0, 140, 2)))
    text = selector_text(And(terms=(Token(ids=("[0, 1]",)), listed)))
    short = 'token("[0, 1]") and prompt[0, 2, 4, 6, 8, 10, 12, 14, 16, 18, … and 60 more]'
    assert brief(text) == short
    assert brief("prompt[0, 4..8, -1] or generated[::2]") == "prompt[0, 4..8, -1] or generated[::2]"
