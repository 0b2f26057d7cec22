"""What each format means, as the tools that have it write it, and what no format may hide."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.numpy import save_file

from interv.errors import IntervError
from interv.vectors import read_vectors, save_vectors
from tests.vectors.test_round_trip import banks, nonzero

FORMATS = ("gguf", "pt", "safetensors")


def control_vector(
    path: Path,
    directions: dict[int | str, np.ndarray],
    architecture: str = "controlvector",
    more: Callable[[gguf.GGUFWriter], object] = lambda writer: None,
) -> Path:
    """Write a GGUF file by the library that every tool uses, with `more` metadata."""
    writer = gguf.GGUFWriter(path, architecture)
    more(writer)
    for layer, vector in directions.items():
        writer.add_tensor(f"direction.{layer}", vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def rows(*layers: int) -> dict[int | str, np.ndarray]:
    return {layer: np.full(4, layer + 1, np.float32) for layer in layers}


@settings(deadline=None, max_examples=60)
@given(bank=banks(), path=st.lists(st.sampled_from(FORMATS), min_size=1, max_size=5))
def test_any_chain_of_formats_keeps_every_bit(bank: dict[int, np.ndarray], path: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        first = Path(place) / "0.gguf"
        save_vectors(first, bank, "tiny-model")
        at = first
        for step, suffix in enumerate(path, 1):
            save_vectors(Path(place) / f"{step}.{suffix}", read_vectors(at))
            at = Path(place) / f"{step}.{suffix}"
        save_vectors(Path(place) / "last.gguf", read_vectors(at))
        assert (Path(place) / "last.gguf").read_bytes() == first.read_bytes()


@settings(deadline=None, max_examples=30)
@given(vector=nonzero(7))
def test_one_direction_keeps_every_bit(vector: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place) / name for name in ("a.safetensors", "b.pt", "c.safetensors")]
        save_file({"direction": vector}, files[0], metadata={"model_hint": "tiny"})
        for source, target in pairwise(files):
            save_vectors(target, read_vectors(source))
        last = read_vectors(files[-1])
        assert (last.layers, last.hint) == (None, "tiny")
        assert last.at(0).tobytes() == vector.tobytes()
        assert files[0].read_bytes() == files[2].read_bytes()


def test_a_written_pt_is_a_dict_of_tensors_by_layer(tmp_path: Path) -> None:
    bank = {3: np.ones(4, np.float32), 0: np.arange(4, dtype=np.float32)}
    save_vectors(tmp_path / "a.pt", bank, "tiny")
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    assert list(loaded) == [0, 3]
    assert torch.equal(loaded[0], torch.arange(4.0))
    save_vectors(tmp_path / "b.pt", bank, "tiny")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_each_tool_numbers_blocks_from_0_by_their_output(tmp_path: Path) -> None:
    """The layer N of a file is the block whose output it edits; none is shifted on reading."""

    def easysteer(writer: gguf.GGUFWriter) -> None:
        writer.add_string("controlvector.model_hint", "qwen2.5")
        writer.add_string("controlvector.method", "pca")
        writer.add_uint32("controlvector.layer_count", 3)
        writer.add_float32("controlvector.explained_variance.2", 0.5)

    def repeng(writer: gguf.GGUFWriter) -> None:
        writer.add_string("controlvector.model_hint", "mistral")
        writer.add_uint32("controlvector.layer_count", 3)

    def llama_cpp(writer: gguf.GGUFWriter) -> None:
        writer.add_string("controlvector.model_hint", "llama")
        writer.add_int32("controlvector.layer_count", 3)

    files = {
        "easysteer": control_vector(tmp_path / "e.gguf", rows(0, 1, 2), more=easysteer),
        "repeng": control_vector(tmp_path / "r.gguf", rows(3, 2, 1), more=repeng),
        "llama.cpp": control_vector(tmp_path / "l.gguf", rows(1, 2, 3), more=llama_cpp),
        "test": control_vector(tmp_path / "t.gguf", rows(0, 5), "steervector"),
    }
    got = {name: read_vectors(path) for name, path in files.items()}
    assert {name: (one.layers, one.hint, one.source) for name, one in got.items()} == {
        "easysteer": ((0, 1, 2), "qwen2.5", "EasySteer, method 'pca'"),
        "repeng": ((1, 2, 3), "mistral", ""),
        "llama.cpp": ((1, 2, 3), "llama", "llama.cpp's cvector-generator"),
        "test": ((0, 5), "", ""),
    }
    for one in got.values():
        assert one.layers is not None
        assert all(np.array_equal(one.at(n), np.full(4, n + 1)) for n in one.layers)
    assert got["test"].notes == (
        "general.architecture is 'steervector', not 'controlvector'",
        "direction.0 is used here; llama.cpp refuses files that hold it",
    )
    assert len(got["llama.cpp"].notes) == 1


@pytest.mark.parametrize("name", ["x", "-1", "01", "1.2", ""])
def test_a_direction_that_names_no_layer(tmp_path: Path, name: str) -> None:
    path = control_vector(tmp_path / "a.gguf", {1: np.ones(4, np.float32), name: np.ones(4)})
    with pytest.raises(IntervError) as caught:
        read_vectors(path)
    assert str(caught.value) == (
        f"error[E222]: '{path}' is not a valid gguf file\n"
        f"  = its tensor 'direction.{name}' names no layer"
    )


@pytest.mark.parametrize("suffix", [*FORMATS, "pkl"])
def test_a_pointer_of_git_lfs_is_told_from_a_damaged_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 173632\n")
    with pytest.raises(IntervError) as caught:
        read_vectors(path)
    assert caught.value.code == "E222"
    assert caught.value.helps == ("it is a pointer of Git LFS: `git lfs pull` fetches the file",)


@pytest.mark.parametrize(
    ("values", "rounded"),
    [
        (np.array([0.5, 3.0]), False),
        (np.array([0.1, 3.0]), True),
        (np.array([1, 2**24]), False),
        (np.array([1, 2**24 + 1]), True),
        (np.array([0.1], np.float32), False),
    ],
)
def test_digits_beyond_float32_are_known(tmp_path: Path, values: np.ndarray, rounded: bool) -> None:
    save_file({"x": values}, tmp_path / "a.safetensors")
    torch.save(torch.tensor(values), tmp_path / "a.pt")
    for path in tmp_path.iterdir():
        assert read_vectors(path).rounded is rounded
