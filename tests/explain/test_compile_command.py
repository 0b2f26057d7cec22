"""`interv compile` at the command line, and the facts it reads from a model's config."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from interv.codegen.bundle import Bundle
from interv.commands.compile import compile_
from interv.compile import compile_documents
from interv.errors import IntervError
from interv.load import load_text
from interv.model import ModelFacts, facts_from_config, model_facts

ROOT = Path(__file__).parent.parent.parent
MODEL = "examples/models/smollm2-135m"


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def run(*args: str) -> Result:
    app = typer.Typer()
    app.command()(compile_)
    return CliRunner().invoke(app, list(args))


def test_one_line() -> None:
    found = run("examples/joy.interv", "--model", MODEL)
    assert (found.exit_code, found.stdout) == (
        0,
        "joy for smollm2-135m: 11 columns at 11 sites, 11 launches and 22 µs a step"
        " (predicted), default joy\n",
    )


def test_without_model() -> None:
    found = run("examples/joy.interv")
    assert (found.exit_code, found.stdout) == (
        0,
        "examples/joy.interv: fine as far as can be said without --model\n",
    )
    shown = run("examples/joy.interv", "--explain").stdout
    assert "  program joy  conflict sequential" in shown
    assert "need a model: give --model" in shown
    refused = run("examples/joy.interv", "--pass", "fold_adds")
    assert refused.exit_code == 1
    assert refused.stderr == (
        "error[E251]: '--pass fold_adds' needs a model\n"
        "  = add --model with a folder that has a config.json; weights are not needed\n"
    )


def test_wrong_input() -> None:
    missing = run("examples/nothing.interv", "--model", MODEL)
    assert missing.exit_code == 1
    assert missing.stderr.startswith("error[E200]")
    twice = run("examples/joy.interv", "examples/gloom.interv", "--model", MODEL)
    assert twice.exit_code == 1
    assert "error[E403]: two documents name a default program" in twice.stderr
    assert run("examples/joy.interv", "--model", MODEL, "--stage", "graf").exit_code == 2
    unknown = run("examples/joy.interv", "--model", MODEL, "--pass", "fuse")
    assert unknown.exit_code == 1
    assert "= passes: resolve_sites, resolve_conflicts, fold_constants" in unknown.stderr


def test_json_and_one_pass() -> None:
    data = json.loads(run("examples/joy.interv", "-m", MODEL, "--format", "json").stdout)
    assert data["plan"]["launches"] == 11
    shown = run("examples/joy.interv", "-m", MODEL, "--pass", "fuse_updates").stdout
    assert "+   %3   stream    [T, H]   update %0, K = 1" in shown


def test_facts_by_their_usual_names() -> None:
    gpt = {"n_embd": 768, "n_layer": 12, "architectures": ["GPT2LMHeadModel"]}
    assert facts_from_config(gpt, "gpt2") == ModelFacts("gpt2", "GPT2LMHeadModel", 768, 12)
    parts = {
        "model_type": "seen",
        "hidden_size": 1,
        "num_hidden_layers": 1,
        "text_config": {"hidden_size": 64, "num_hidden_layers": 2},
    }
    assert facts_from_config(parts, "both") == ModelFacts("both", "seen", 64, 2)


def test_a_config_without_the_facts(tmp_path: Path) -> None:
    with pytest.raises(IntervError) as caught:
        facts_from_config({"hidden_size": 8}, "half")
    assert str(caught.value).splitlines()[0] == (
        "error[E532]: the config of 'half' gives no number of blocks"
    )
    (tmp_path / "weights").touch()
    with pytest.raises(IntervError) as none:
        model_facts(str(tmp_path))
    assert str(none.value) == (
        f"error[E530]: folder '{tmp_path}' has no config.json\n  = files there: weights"
    )
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(IntervError, match="is not JSON"):
        model_facts(str(tmp_path / "config.json"))


def test_a_model_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(IntervError) as caught:
        model_facts("nobody/nothing")
    assert str(caught.value) == (
        "error[E530]: no model 'nobody/nothing': it is neither a folder nor a file, and it is not"
        " in the local cache, and the hub cannot be reached\n"
        "  = give a folder with a config.json, or that file itself; weights are not needed"
    )


def bundle(text: str) -> Bundle:
    document = load_text(f"interv 1\n{text}", "t.interv", ROOT / "examples")
    return compile_documents([document], model_facts(MODEL)).bundle


JOY = 'vector joy = "vectors/joy.gguf"\nvector sea = "vectors/sea.safetensors"\n'


def test_no_programs_make_an_empty_bundle() -> None:
    empty = bundle(JOY)
    assert (empty.sites, empty.selectors, empty.programs, empty.default) == ((), (), (), None)
    assert empty.contents == {}


def test_structure_is_sites_and_contents_is_everything() -> None:
    base = bundle(JOY + "program p { steer joy at post_block[3] }")
    scaled = bundle(JOY + "program p { steer joy at post_block[3] scale 2 }")
    other = bundle(JOY + "program p { ablate sea at post_block[3] when generated }")
    moved = bundle(JOY + "program p { steer joy at post_block[4] }")
    renamed = bundle(JOY + "program q { steer joy at post_block[3] }")
    beside = bundle(
        JOY + "program q { ablate sea at post_block[3] when prompt }\n"
        "program p { steer joy at post_block[3] }"
    )
    assert base.structure == scaled.structure == other.structure == beside.structure
    assert moved.structure != base.structure
    assert len({one.contents["p"] for one in (base, scaled, other, moved)}) == 4
    # What a program does is the same under another name and beside other programs.
    assert renamed.contents["q"] == beside.contents["p"] == base.contents["p"]


def test_programs_share_the_bank_of_a_site() -> None:
    made = bundle(
        JOY + "program p { steer joy at post_block[3] scale 2 }\n"
        "program q { steer joy at post_block[3] scale 5 when generated }"
    )
    (table,) = made.sites
    assert (len(table.bank), table.width, len(made.selectors)) == (1, 1, 2)
    assert {name: c.alpha for name, (c,) in table.programs.items()} == {"p": 2.0, "q": 5.0}


def test_every_package_is_listed() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        init.parent.relative_to(ROOT).as_posix()
        for top in ("interv", "dsl", "passes", "codegen", "runtime")
        for init in (ROOT / top).rglob("__init__.py")
    }
    assert set(config["package-dir"].values()) == folders
    assert set(config["package-dir"]) == set(config["packages"])
