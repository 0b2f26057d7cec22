"""Vectors as other tools save them: every way to name layers and every shape, in every format."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from interv.document.spec import VectorDecl
from interv.errors import IntervError
from interv.vectors import Directions, load_vector, read_vectors

H = 6
Arrays = Mapping[Any, np.ndarray]


def rows(count: int, width: int = H) -> np.ndarray:
    return np.arange(1, count * width + 1, dtype=np.float32).reshape(count, width)


def _save(path: Path, held: Mapping[Any, Any]) -> None:
    named = {str(name): np.asarray(value) for name, value in held.items()}
    match path.suffix:
        case ".safetensors":
            save_file({name: np.ascontiguousarray(one) for name, one in named.items()}, path)
        case ".npz":
            np.savez(path, **named)
        case ".json" | ".svec":
            path.write_text(json.dumps({name: one.tolist() for name, one in named.items()}))
        case ".pkl":
            path.write_bytes(pickle.dumps(dict(held)))
        case _:
            torch.save({name: torch.from_numpy(np.asarray(held[name])) for name in held}, path)


SUFFIXES = (".safetensors", ".npz", ".json", ".svec", ".pkl", ".pt", ".pth", ".bin")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("names", "site"),
    [
        ("{}", ""),
        ("layer.{}", ""),
        ("layer_{}", ""),
        ("Layer {}", ""),
        ("layers.{}", ""),
        ("model.layers.{}", ""),
        ("model.layers[{}].output", ""),
        ("transformer.h.{}", ""),
        ("blocks.{}", ""),
        ("direction.{}", ""),
        ("directions_{}", ""),
        ("blocks.{}.hook_resid_post", "post_block"),
        ("blocks.{}.hook_resid_mid", "post_attn"),
        ("blocks.{}.hook_resid_pre", "pre_attn"),
        ("model.layers.{}.input", "pre_attn"),
        ("resid_post.{}", "post_block"),
    ],
)
def test_every_name_of_a_layer_in_every_format(
    tmp_path: Path, suffix: str, names: str, site: str
) -> None:
    wanted = {2: rows(1)[0], 10: rows(2)[1]}
    _save(tmp_path / f"a{suffix}", {names.format(n): one for n, one in wanted.items()})
    got = read_vectors(tmp_path / f"a{suffix}")
    assert got.layers == (2, 10)
    assert all(np.array_equal(got.at(n), one) for n, one in wanted.items())
    assert got.measured == site
    first = names.format(2)
    plain = names in ("{}", "layer.{}")
    where = f"; they were measured at {site} of these layers" if site else ""
    note = f"names like '{first}' are read as layers{where}"
    assert got.reading == (() if plain else (note,))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("shape", "read"),
    [((1, H), (H,)), ((H, 1), (H,)), ((1, 1, H), (H,)), ((4, 1, H), (4, H)), ((1, 4, H), (4, H))],
)
def test_axes_of_length_1_are_what_is_left_of_a_batch(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], read: tuple[int, ...]
) -> None:
    values = rows(4).reshape(-1)[: int(np.prod(shape))]
    _save(tmp_path / f"a{suffix}", {"x": values.reshape(shape)})
    got = read_vectors(tmp_path / f"a{suffix}")
    wanted = values.reshape(read)
    assert got.rows == (4 if len(read) == 2 else None)
    for layer, one in enumerate(np.atleast_2d(wanted)):
        assert np.array_equal(got.at(layer), one)
    assert got.reading == (f"'x' of shape {list(shape)} is read as {list(read)}",)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_direction_beside_its_layer(tmp_path: Path, suffix: str) -> None:
    _save(tmp_path / f"a{suffix}", {"direction": rows(1)[0], "layer": np.array(14)})
    got = read_vectors(tmp_path / f"a{suffix}")
    assert got.layers == (14,)
    assert np.array_equal(got.at(14), rows(1)[0])
    assert got.reading == ("its 'layer' says that the direction is of layer 14 alone",)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_beside_the_list_of_their_layers(tmp_path: Path, suffix: str) -> None:
    _save(tmp_path / f"a{suffix}", {"bank": rows(3), "layers": np.array([4, 8, 6])})
    got = read_vectors(tmp_path / f"a{suffix}")
    assert (got.layers, got.rows) == ((4, 6, 8), None)
    assert np.array_equal(got.at(8), rows(3)[1])
    assert got.reading == ("its 'layers' says of which layers its 3 rows are",)
    _save(tmp_path / f"b{suffix}", {"bank": rows(3), "layers": np.array([4, 8])})
    with pytest.raises(IntervError) as caught:
        read_vectors(tmp_path / f"b{suffix}")
    assert caught.value.message == (
        f"'{tmp_path / f'b{suffix}'}' lists 2 layers under 'layers', and holds 3 rows"
    )


def test_int_keys_with_a_batch_axis(tmp_path: Path) -> None:
    torch.save({10: torch.ones(1, H), 12: torch.full((1, H), 2.0)}, tmp_path / "a.pt")
    got = read_vectors(tmp_path / "a.pt")
    assert got.layers == (10, 12)
    assert got.at(12).tolist() == [2.0] * H


@pytest.mark.parametrize(
    ("held", "layers"),
    [
        ([1.0, 2.0, 3.0], None),
        ([torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[4.0, 5.0, 6.0]])], (0, 1)),
        ({"vectors": {"3": [1.0, 2.0, 3.0], "4": [4.0, 5.0, 6.0]}, "method": "caa"}, (3, 4)),
        ({"vector": [1.0, 2.0, 3.0], "hook_name": "blocks.7.hook_resid_pre"}, (7,)),
    ],
)
def test_lists_and_dicts_in_dicts(tmp_path: Path, held: Any, layers: tuple[int, ...]) -> None:
    torch.save(held, tmp_path / "a.pt")
    got = read_vectors(tmp_path / "a.pt")
    assert got.layers == layers
    for index, layer in enumerate(layers or (5,)):
        assert got.at(layer).tolist() == [[1, 2, 3], [4, 5, 6]][index]


def test_several_banks_in_one_file_are_chosen_by_key(tmp_path: Path) -> None:
    held = {name: {n: torch.full((H,), n + 1.0) for n in (3, 5)} for name in ("evil", "kind")}
    torch.save(held, tmp_path / "a.pt")
    got = read_vectors(tmp_path / "a.pt", "kind")
    assert got.layers == (3, 5)
    assert got.reading == ("the names behind 'kind' are read as layers",)
    with pytest.raises(IntervError) as caught:
        read_vectors(tmp_path / "a.pt")
    assert caught.value.code == "E224"
    assert caught.value.helps[0] == 'choose one: key "evil"'


def test_what_is_not_looked_at_is_said(tmp_path: Path) -> None:
    held = {"direction": rows(1)[0], "layer": 3, "coeff": 4.0, "method": "caa", "more": {"a": 1}}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(held))
    assert read_vectors(tmp_path / "a.pkl").reading == (
        "not looked at: 'coeff' 4.0, 'method' 'caa', 'more'",
        "its 'layer' says that the direction is of layer 3 alone",
    )


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        ({"v": [1.0], "layer": -1}, "its 'layer' is '-1'; layers are whole numbers from 0"),
        ({"v": [1.0], "layer": "last"}, "its 'layer' is 'last'; layers are whole numbers from 0"),
        (
            {"v": [1.0], "layer": 3, "hook": "blocks.4.hook_resid_post"},
            "it says its layer twice, and not the same: 'layer' 3 and 'hook' 4",
        ),
        (
            {"v": [1.0], "rows": "layers"},
            "its 'rows' is 'layers', not one of: blocks, hidden_states",
        ),
        ([[1.0, 2.0], [3.0]], "its lists are not of one length"),
        (
            [torch.ones(3), torch.ones(4)],
            "its list holds tensors of shapes [3] and [4], not of one direction each",
        ),
    ],
)
def test_what_stands_beside_must_make_sense(tmp_path: Path, held: Any, reason: str) -> None:
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(IntervError) as caught:
        read_vectors(tmp_path / "a.pt")
    assert (caught.value.code, caught.value.notes) == ("E222", (reason,))


@dataclass
class SteeringVector:
    """As the `steering-vectors` library defines it."""

    layer_activations: dict[int, torch.Tensor]
    layer_type: str = "decoder_block"


@pytest.mark.parametrize("name", ["a.pt", "a.pkl"])
def test_an_object_of_a_class_is_its_arrays(tmp_path: Path, name: str) -> None:
    one = SteeringVector({n: torch.full((H,), n + 1.0) for n in (10, 12)})
    path = tmp_path / name
    torch.save(one, path) if name == "a.pt" else path.write_bytes(pickle.dumps(one))
    got = read_vectors(path)
    assert got.layers == (10, 12)
    assert got.at(12).tolist() == [13.0] * H
    assert got.reading == (
        "the directions are those of its entry 'layer_activations'",
        "not looked at: 'layer_type' 'decoder_block'",
    )


def loaded(folder: Path, path: str, **options: Any) -> Directions:
    return load_vector(VectorDecl(name="v", path=path, **options), folder)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_row_of_a_matrix(tmp_path: Path, suffix: str) -> None:
    matrix = rows(20)
    matrix[3] = np.nan  # what is not taken is not looked at
    _save(tmp_path / f"a{suffix}", {"W_dec": matrix, "b_dec": rows(1)[0]})
    got = loaded(tmp_path, f"a{suffix}", key="W_dec", row=17)
    assert (got.layers, got.rows) == (None, None)
    assert np.array_equal(got.at(5), matrix[17])
    for options, message, note in (
        ({"key": "W_dec", "row": 20}, "has no row 20: it has 20 rows", "rows there: 0..19"),
        (
            {"key": "b_dec", "row": 0},
            f"has shape [{H}], and no rows",
            "a row is taken of a matrix [N, H]",
        ),
    ):
        with pytest.raises(IntervError) as caught:
            loaded(tmp_path, f"a{suffix}", **options)
        where = f"vector 'v': '{options['key']}' in 'a{suffix}'"
        assert (caught.value.code, caught.value.message, caught.value.notes) == (
            "E237",
            f"{where} {message}",
            (note,),
        )


def test_rows_by_hidden_states(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", rows(5))
    plain = loaded(tmp_path, "a.npy")
    assert (plain.layers, plain.rows, plain.numbering) == ((0, 1, 2, 3, 4), 5, "")
    got = loaded(tmp_path, "a.npy", rows="hidden_states")
    assert (got.layers, got.rows, got.numbering) == ((0, 1, 2, 3), 4, "hidden_states")
    assert all(np.array_equal(got.at(n), rows(5)[n + 1]) for n in range(4))
    assert got.reading == (
        "hidden_states[i + 1] is layer i: layers 0..3; that of hidden_states[0], the embedding, "
        "is left out",
        "most models give hidden_states[4] behind the final norm: then the direction of layer 3 "
        "is of another stream than post_block[3]",
    )


@pytest.mark.parametrize("suffix", [".json", ".npz", ".pt", ".pkl"])
def test_a_file_says_what_its_rows_are(tmp_path: Path, suffix: str) -> None:
    held = {"bank": rows(3), "rows": "hidden_states"}
    if suffix == ".pt":
        torch.save({"bank": torch.from_numpy(rows(3)), "rows": "hidden_states"}, tmp_path / "a.pt")
    elif suffix == ".pkl":
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(held))
    else:
        _save(tmp_path / f"a{suffix}", held)
    assert loaded(tmp_path, f"a{suffix}").layers == (0, 1)
    assert loaded(tmp_path, f"a{suffix}", rows="blocks").layers == (0, 1, 2)


def test_safetensors_say_it_in_their_metadata(tmp_path: Path) -> None:
    save_file({"x": rows(3)}, tmp_path / "a.safetensors", {"interv.rows": "hidden_states"})
    got = loaded(tmp_path, "a.safetensors")
    assert (got.layers, dict(got.facts)) == ((0, 1), {})


def test_numbers_of_hidden_states_as_names(tmp_path: Path) -> None:
    save_file({"0": rows(1)[0], "15": rows(2)[1]}, tmp_path / "a.safetensors")
    got = loaded(tmp_path, "a.safetensors", rows="hidden_states")
    assert (got.layers, got.rows) == ((14,), None)


def test_one_direction_has_no_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", rows(1)[0])
    with pytest.raises(IntervError) as caught:
        loaded(tmp_path, "a.npy", rows="hidden_states")
    assert str(caught.value) == (
        "error[E238]: vector 'v': 'a.npy' holds one direction, which 'rows hidden_states' cannot "
        "number\n  = leave 'rows' out: the document says at which layers it is used"
    )


def _itself(made: Any) -> Any:
    many = [made] * 2000
    made.extend(many) if isinstance(made, list) else made.update(enumerate(many))
    return made


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (_itself([]), "its lists hold each other"),
        (_itself({}), "its dicts hold each other"),
        ([np.ones(4096)] * 1000, "its tensors are more than 4 times larger than the file"),
        ({"a": [np.ones(4096)] * 1000}, "its tensors are more than 4 times larger than the file"),
    ],
    ids=["lists", "dicts", "stack", "stack in a dict"],
)
def test_what_is_shared_without_end_ends(tmp_path: Path, held: Any, reason: str) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(held))
    with pytest.raises(IntervError) as caught:
        read_vectors(tmp_path / "a.pkl")
    assert (caught.value.code, caught.value.notes) == ("E222", (reason,))
