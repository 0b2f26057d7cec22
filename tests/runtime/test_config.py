"""What travels in a vLLM configuration, and the words for what cannot."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from interv.errors import IntervError, IntervErrors
from interv.model import ModelFacts, facts_from_config, model_facts
from interv.runtime import compat
from interv.runtime.config import InterventionConfig, engine_args, options_of
from tests.runtime.small import bundle

OFF = {"inline": False, "absorb_norm": False}
NOT_UNDERSTOOD = (
    "error[E502]: additional_config['interv'] is not understood\n"
    "  = its keys are: files, slots, inline, absorb_norm\n"
    "  = use {'interv': {'files': ['calm.interv']}}, or --intervention FILE"
)
WRONG_FILES = """\
error[E200]: 'missing.interv' cannot be read: no such file or directory

error[E101]: expected the name of a vector after 'steer'
 --> broken.interv:4:8
  |
4 |   steer
  |        ^ missing

error[E205]: no program is called 'clam'
 --> unknown.interv:6:9
  |
6 | default clam
  |         ^^^^ unknown program
  |
  = programs here: calm
  = did you mean 'calm'?"""
GOOD = "interv 1\n\nprogram calm {\n}\n\ndefault calm\n"


def test_the_hash_is_the_structure() -> None:
    first = InterventionConfig(bundle())
    same = [
        InterventionConfig(bundle(scale=-7.0)),
        InterventionConfig(bundle(default=None)),
        InterventionConfig(bundle(), slots=9),
        pickle.loads(pickle.dumps(first)),
    ]
    assert {one.compute_hash() for one in same} == {first.compute_hash()}
    other = [
        InterventionConfig(bundle(structure="two")),
        InterventionConfig(bundle(), extra={"theirs": 1}),
        InterventionConfig(bundle(), extra={"theirs": 2}),
    ]
    assert len({one.compute_hash() for one in (first, *other)}) == 4


def test_the_hash_does_not_depend_on_the_order_of_what_else_is_there() -> None:
    one = InterventionConfig(bundle(), extra={"a": 1, "b": 2})
    two = InterventionConfig(bundle(), extra={"b": 2, "a": 1})
    assert one.compute_hash() == two.compute_hash()


@pytest.mark.parametrize("additional", [None, {}, {"theirs": {"files": []}}, object()])
def test_a_configuration_without_a_part_of_ours(additional: Any) -> None:
    assert options_of(additional) is None


@pytest.mark.parametrize(
    "options",
    [
        None,
        "calm.interv",
        ["calm.interv"],
        {},
        {"files": []},
        {"files": "calm.interv"},
        {"slots": 3},
        {"files": ["calm.interv"], "slot": 3},
        {"files": ["calm.interv"], "inline": "yes"},
    ],
    ids=str,
)
def test_a_part_of_the_wrong_shape(options: Any) -> None:
    with pytest.raises(IntervError) as caught:
        options_of({"interv": options})
    assert str(caught.value) == NOT_UNDERSTOOD


@pytest.mark.parametrize("slots", [0, -1, 2.5, "8", None, True])
def test_a_wrong_number_of_slots(slots: Any) -> None:
    with pytest.raises(IntervError) as caught:
        options_of({"interv": {"files": ["calm.interv"], "slots": slots}})
    expected = f"error[E502]: the number of slots must be at least 1, not {slots!r}"
    assert str(caught.value) == expected


def test_options_are_handed_on() -> None:
    options = {"files": ["calm.interv"], "slots": 8}
    assert options_of({"interv": options, "theirs": 1}) == options


def test_engine_args_names_the_files_by_their_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "calm.interv").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    made = engine_args("calm.interv", slots=4)
    files = [str(tmp_path / "calm.interv")]
    assert made == {"additional_config": {"interv": {"files": files, "slots": 4, **OFF}}}
    assert options_of(made["additional_config"]) == made["additional_config"]["interv"]


def test_engine_args_tells_of_every_file_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "good.interv").write_text(GOOD)
    (tmp_path / "broken.interv").write_text("interv 1\n\nprogram calm {\n  steer\n}\n")
    (tmp_path / "unknown.interv").write_text(GOOD.replace("default calm", "default clam"))
    names = ["missing.interv", "good.interv", "broken.interv", "unknown.interv"]
    with pytest.raises(IntervErrors) as caught:
        engine_args(*(tmp_path / name for name in names))
    assert [one.code for one in caught.value.errors] == ["E200", "E101", "E205"]
    shown = str(caught.value).replace(f"{tmp_path}/", "")
    assert shown == WRONG_FILES


def test_sizes_that_a_config_does_not_write_down(tmp_path: Path) -> None:
    from transformers import NemotronHConfig

    kinds = ["mamba", "attention", "mlp", "mamba", "mlp"]
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    config = NemotronHConfig(
        hidden_size=128, layers_block_type=kinds, architectures=["NemotronHForCausalLM"], **sizes
    )
    assert "num_hidden_layers" not in config.to_dict()
    model = SimpleNamespace(hf_text_config=config, hf_config=config)
    expected = ModelFacts("tiny", "NemotronHForCausalLM", 128, 5)
    # The engine asks the object; a command that has the file alone counts what it lists.
    told = compat.text_config(SimpleNamespace(model_config=model))
    assert told["num_hidden_layers"] == 5
    assert facts_from_config(told, "tiny") == expected
    config.save_pretrained(tmp_path / "tiny")
    assert model_facts(str(tmp_path / "tiny")) == expected


def test_what_a_config_says_is_not_asked_for_again() -> None:
    from transformers import GPT2Config

    config = GPT2Config(n_embd=64, n_layer=3, architectures=["GPT2LMHeadModel"])
    model = SimpleNamespace(hf_text_config=config, hf_config=config)
    told = compat.text_config(SimpleNamespace(model_config=model))
    assert told == config.to_dict()
    assert facts_from_config(told, "gpt2") == ModelFacts("gpt2", "GPT2LMHeadModel", 64, 3)
