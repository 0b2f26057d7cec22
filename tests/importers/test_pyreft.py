"""A pyreft folder becomes a program that edits where, and as, pyreft does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interv.errors import IntervError
from interv.importers import Imported, Options, import_file
from tests.dsl.test_translations import At
from tests.importers.ran import H, Row, check, written
from tests.vectors.made import loreft_state, reft_config, representation

RANK = 2


def folder(place: Path, layers: list[int], **more: Any) -> dict[tuple[int, int], dict[str, Row]]:
    """Write a folder with an intervention for each of `layers`; return their numbers."""
    place.mkdir()
    found: dict[tuple[int, int], dict[str, Row]] = {}
    for index, layer in enumerate(layers):
        unit = layers[:index].count(layer)
        state = loreft_state(H, RANK, index)
        name = f"intkey_layer_{layer}_comp_block_output_unit_pos_nunit_1#{unit}.bin"
        torch.save(state, place / name)
        found[layer, unit] = {key: values.double().numpy() for key, values in state.items()}
    config = reft_config([representation(layer) for layer in layers], H)
    (place / "config.json").write_text(json.dumps(config))
    if more:
        (place / "args.json").write_text(json.dumps(more))
    return found


def loreft(state: dict[str, Row], h: Row) -> Row:
    inner = h @ state["weight"].T + state["bias"] - h @ state["rotate_layer"]
    edited: Row = h + inner @ state["rotate_layer"].T
    return edited


def body(made: Imported) -> str:
    return made.text[made.text.index("program") :]


def test_two_interventions_a_layer(tmp_path: Path) -> None:
    states = folder(tmp_path / "style", [1, 2, 1, 2])
    made = written(tmp_path / "style", positions="f2+l1")
    assert body(made) == (
        "program out {\n"
        "  apply style_first  at post_block[1, 2]  when prompt[0:2]\n"
        "  apply style_last   at post_block[1, 2]  when prompt[-1]\n"
        "}\n"
    )
    assert made.remarks[0].startswith("of a prompt shorter than both ends together")

    def edited(h: Row, layer: int, at: At) -> Row:
        if layer in (1, 2) and at.position < min(2, at.prompt_length):
            h = loreft(states[layer, 0], h)
        if layer in (1, 2) and at.position == at.prompt_length - 1:
            h = loreft(states[layer, 1], h)
        return h

    check(made, edited)


def test_one_intervention_for_both_ends(tmp_path: Path) -> None:
    states = folder(tmp_path / "style", [3, 0], position="f1+l2", share_weights=True, act_fn=None)
    made = written(tmp_path / "style", name="polite")
    assert body(made) == (
        "program polite {\n  apply style at post_block[0, 3] when prompt[0] or prompt[-2:]\n}\n"
    )

    def edited(h: Row, layer: int, at: At) -> Row:
        chosen = at.position == 0 or at.prompt_length - 2 <= at.position < at.prompt_length
        return loreft(states[layer, 0], h) if layer in (0, 3) and chosen else h

    check(made, edited)
    assert written(tmp_path / "style", positions="l3").text.endswith("when prompt[-3:]\n}\n")


@pytest.mark.parametrize(
    ("layers", "said", "when"),
    [([1], "l1", ["prompt[-1]"]), ([1, 1], "f1+l1", ["prompt[0]", "prompt[-1]"])],
)
def test_positions_that_nobody_says(
    tmp_path: Path, layers: list[int], said: str, when: list[str]
) -> None:
    folder(tmp_path / "style", layers)
    made = written(tmp_path / "style")
    assert [line.partition("when ")[2] for line in body(made).splitlines()[1:-1]] == when
    assert made.remarks[0] == (
        f"the folder does not say at which positions it was trained: {said}, what pyreft takes"
        " where it is told nothing; --positions f7+l7 says others"
    )


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(IntervError) as caught:
        import_file(path, path.parent / "out.interv", Options(path.parent, **options))
    return str(caught.value)


@pytest.mark.parametrize("text", ["f0", "f1l1", "+", "", "f1+", "+l1", "l1+f1", "all", "f1+l1+l1"])
def test_words_that_are_no_positions(tmp_path: Path, text: str) -> None:
    folder(tmp_path / "style", [1])
    assert refused(tmp_path / "style", positions=text) == (
        f"error[E843]: '{text}' names no positions\n"
        "  = f7 is the first seven tokens of a prompt, l7 the last seven, f7+l7 both"
    )


def test_interventions_that_are_no_two_halves(tmp_path: Path) -> None:
    folder(tmp_path / "three", [1, 1, 1])
    folder(tmp_path / "mixed", [1, 1, 2, 2])
    help_ = "  = declare each, adapter first = '{}#0', and say `when` it applies"
    assert refused(tmp_path / "three") == (
        "error[E844]: 'three' has 3 interventions at a layer\n"
        "  = positions divide them in two: first and last tokens\n" + help_.format("three")
    )
    assert refused(tmp_path / "mixed") == (
        "error[E844]: 'mixed' does not list its layers twice, one time for each end of a prompt\n"
        "  = units of its interventions, in their order: 0, 1, 0, 1\n" + help_.format("mixed")
    )


def test_what_is_no_pyreft_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "module.json").write_text('{"vectors": {"post_block": {"1": [1.0]}}}')
    assert refused(tmp_path / "empty") == (
        "error[E233]: 'empty' has no config\n"
        "  = a pyreft folder has one of: reft_config.json, config.json"
    )
    assert refused(tmp_path / "module.json", positions="f1") == (
        "error[E211]: positions are for a pyreft folder alone\n"
        "  = 'module.json' is a RhizoNymph module"
    )
    with pytest.raises(IntervError, match="is not of format 'pyreft'"):
        import_file(tmp_path / "module.json", tmp_path / "a.interv", Options(tmp_path), "pyreft")


def test_saved_states_are_read_without_torch(tmp_path: Path) -> None:
    """What `state_dict` returns carries torch's versions, which are no tensors."""
    folder(tmp_path / "style", [1])
    module = torch.nn.Linear(H, RANK)
    state = module.state_dict()
    state["rotate_layer"] = torch.linalg.qr(torch.randn(H, RANK))[0]
    torch.save(state, tmp_path / "style/intkey_layer_1_comp_block_output_unit_pos_nunit_1#0.bin")
    from interv.document.spec import AdapterDecl
    from interv.vectors import load_adapter

    got = load_adapter(AdapterDecl(name="style", path="style"), tmp_path, light=True)
    np.testing.assert_array_equal(
        got.at(1).bias,  # type: ignore[union-attr]
        module.bias.detach().double().numpy(),
    )
