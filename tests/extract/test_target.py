"""Layers, positions and files: what is asked for, and what a format can hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from interv.errors import IntervError
from interv.extract import Extraction, LayerResult
from interv.extract.layers import parse_layers, parse_position
from interv.extract.target import Target, plan_target, write_target
from interv.vectors import read_vectors


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("*", tuple(range(6))),
        ("2", (2,)),
        ("-1", (5,)),
        ("1..3", (1, 2, 3)),
        ("-2..-1", (4, 5)),
        ("1..-3", (1, 2, 3)),
        ("4, 0..1,1", (0, 1, 4)),
    ],
)
def test_layers_are_written_as_in_a_document(text: str, layers: tuple[int, ...]) -> None:
    assert parse_layers(text, 6, "m") == layers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("6", "error[E240]: 'm' has no layer 6: it has 6 blocks"),
        ("-7", "error[E240]: 'm' has no layer -7: it has 6 blocks"),
        ("2..9", "error[E240]: 'm' has no layer 9: it has 6 blocks"),
        ("3..1", "error[E208]: 3..1 is an empty range of layers"),
        (
            "1-3",
            "error[E285]: '1-3' names no layers\n"
            "  = for example: --layers '*', --layers 14, --layers '10..20, -1'",
        ),
    ],
)
def test_layers_that_are_not_there(text: str, message: str) -> None:
    with pytest.raises(IntervError) as caught:
        parse_layers(text, 6, "m")
    assert str(caught.value) == message


def test_positions() -> None:
    assert [parse_position(text) for text in ("-1", "-12", "mean")] == [-1, -12, "mean"]
    for text in ("0", "3", "last", "-0", "--1", ""):
        with pytest.raises(IntervError) as caught:
            parse_position(text)
        assert str(caught.value) == (
            f"error[E285]: '{text}' is not a position\n"
            "  = -1 is the last token, -2 the one before it, mean all tokens of the text"
        )


def test_safetensors_holds_every_site_and_layer(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for site in ("pre_attn", "post_attn", "post_block"):
        assert plan_target(path, site, (0, 3)) == Target(path, {0: 0, 3: 3})


def test_gguf_holds_the_outputs_of_blocks_from_one_on(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    left = "post_block[0] is left out: GGUF has no direction below 1"
    assert plan_target(path, "post_block", (0, 1, 5)) == Target(path, {1: 1, 5: 5}, (left,))
    assert plan_target(path, "post_block", (1, 5)).remarks == ()


def test_gguf_holds_what_enters_a_block_as_what_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    found = plan_target(path, "pre_attn", (0, 1, 2, 6))
    assert found.numbers == {2: 1, 6: 5}
    assert found.remarks == (
        "pre_attn[L] is written as direction.L-1: it is post_block[L-1]",
        "pre_attn[0, 1] is left out: GGUF has no direction below 1",
    )


def refusal(path: Path, site: str = "post_block", layers: tuple[int, ...] = (3,)) -> str:
    with pytest.raises(IntervError) as caught:
        plan_target(path, site, layers)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_what_a_file_cannot_hold(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.gguf", "post_attn") == (
        "error[E287]: 'a.gguf': a GGUF control vector has no place for post_attn\n"
        "  = its direction.N belongs to post_block[N]\n"
        "  = write it as 'a.safetensors'"
    )
    assert refusal(tmp_path / "a.gguf", "pre_attn", (0, 1)) == (
        "error[E287]: 'a.gguf': a GGUF control vector holds no layer of pre_attn[0, 1]\n"
        "  = direction.0 is refused by llama.cpp\n"
        "  = write it as 'a.safetensors'"
    )
    assert refusal(tmp_path / "a.ggfu") == (
        "error[E221]: 'a.ggfu' cannot be written by its suffix '.ggfu'\n"
        "  = written: .gguf, .safetensors\n"
        "  = did you mean '.gguf'?"
    )


def test_files_and_folders_that_are_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"mine")
    assert refusal(path) == "error[E231]: 'a.gguf' exists already\n  = --force replaces it"
    assert plan_target(path, "post_block", (3,), force=True).numbers == {3: 3}
    missing = tmp_path / "no" / "a.gguf"
    assert refusal(missing) == (
        f"error[E232]: 'a.gguf' cannot be written\n  = there is no folder '{missing.parent}'"
    )


@pytest.mark.parametrize("suffix", [".gguf", ".safetensors"])
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 8))
    results = tuple(LayerResult(i, rows[i], 0.0, rows[i], rows[i]) for i in range(3))
    facts = {"model": "tiny", "tool": "interv extract 9", "pairs": "3 used"}
    path = tmp_path / f"a{suffix}"
    target = plan_target(path, "post_block", (0, 1, 2))
    write_target(target, Extraction(results, 3, 3), facts)
    found = read_vectors(path)
    assert found.layers == tuple(target.numbers.values())
    for layer in found.layers or ():
        assert found.at(layer).tolist() == rows[layer].astype(np.float32).tolist()
    assert (found.hint, found.source, dict(found.facts)) == ("tiny", "interv extract 9", facts)
    first = path.read_bytes()
    write_target(target, Extraction(results, 3, 3), facts)
    assert path.read_bytes() == first
