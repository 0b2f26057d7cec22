"""What is written is read back bit for bit, in every format and between formats."""

from __future__ import annotations

import tempfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from interv.document.spec import VectorDecl
from interv.errors import IntervError
from interv.vectors import Directions, load_vector, read_vectors, save_vectors

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def load(path: Path, **options: object) -> Directions:
    return load_vector(VectorDecl(name="v", path=path.name, **options), path.parent)


def nonzero(width: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float32, width, elements=FINITE).filter(lambda v: bool(v.any()))


@st.composite
def banks(draw: st.DrawFn) -> dict[int, np.ndarray]:
    width = draw(st.integers(1, 9))
    layers = draw(st.sets(st.integers(1, 200), min_size=1, max_size=5))
    return {layer: draw(nonzero(width)) for layer in layers}


@settings(deadline=None, max_examples=60)
@given(bank=banks())
def test_banks_survive_every_format(bank: dict[int, np.ndarray]) -> None:
    with tempfile.TemporaryDirectory() as place:
        gg, st_, back = (Path(place) / n for n in ("a.gguf", "b.safetensors", "c.gguf"))
        save_vectors(gg, bank, "tiny")
        save_vectors(st_, read_vectors(gg))
        save_vectors(back, read_vectors(st_))
        pt = Path(place) / "d.pt"
        torch.save({i: torch.from_numpy(v.copy()) for i, v in bank.items()}, pt)
        found = [load(path) for path in (gg, st_, back, pt)]
        assert gg.read_bytes() == back.read_bytes()
    for one in found:
        assert one.layers == tuple(sorted(bank))
        assert one.digest == found[0].digest
        for layer, vector in bank.items():
            assert one.at(layer).tobytes() == vector.tobytes()
    assert [one.hint for one in found] == ["tiny", "tiny", "tiny", ""]
    assert [one.format for one in found] == ["gguf", "safetensors", "gguf", "pt"]


DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(deadline=None, max_examples=20)
@given(values=hnp.arrays(np.int8, st.integers(1, 40), elements=st.integers(1, 120)))
def test_every_dtype_reads_as_torch_reads_it(dtype: torch.dtype, values: np.ndarray) -> None:
    tensor = (torch.from_numpy(values.astype(np.float64)) * 1.0009765625).to(dtype)
    with tempfile.TemporaryDirectory() as place:
        paths = Path(place) / "a.safetensors", Path(place) / "a.pt"
        save_torch({"x": tensor}, paths[0])
        torch.save(tensor, paths[1])
        for path in paths:
            got = load(path)
            assert got.layers is None
            assert np.array_equal(got.at(7), tensor.float().numpy())
            assert got.at(7).dtype == np.float32


@settings(deadline=None, max_examples=60)
@given(vector=nonzero(12))
def test_unit_is_taken_in_float64(vector: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.safetensors"
        save_file({"layer.3": vector}, path)
        got = load(path, unit=True).at(3)
    wide = vector.astype(np.longdouble)
    wide /= np.abs(wide).max()
    wanted = wide / np.sqrt((wide * wide).sum())
    # One rounding to float32 of a value computed to far better than that.
    assert np.all(np.abs(got - wanted) <= np.spacing(np.abs(got)))
    assert abs(float(np.linalg.norm(got.astype(np.float64))) - 1) < 1e-6


def test_two_dimensions_are_layers_by_position(tmp_path: Path) -> None:
    bank = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    save_file({"all": bank}, tmp_path / "a.safetensors")
    got = load(tmp_path / "a.safetensors")
    assert got.layers == (0, 1, 2)
    assert got.rows == 3
    assert np.array_equal(got.at(2), bank[2])


def test_one_row_is_one_direction(tmp_path: Path) -> None:
    save_file({"all": np.ones((1, 4), np.float32)}, tmp_path / "a.safetensors")
    got = load(tmp_path / "a.safetensors")
    assert (got.layers, got.rows, got.width) == (None, None, 4)


def test_a_key_makes_one_direction_of_a_bank(tmp_path: Path) -> None:
    save_vectors(tmp_path / "a.gguf", {2: np.ones(4, np.float32), 5: np.full(4, 2, np.float32)})
    got = load(tmp_path / "a.gguf", key="direction.5")
    assert got.layers is None
    assert np.array_equal(got.at(0), np.full(4, 2, np.float32))


def test_one_named_layer_stays_a_bank(tmp_path: Path) -> None:
    save_file({"layer.14": np.ones(4, np.float32)}, tmp_path / "a.safetensors")
    got = load(tmp_path / "a.safetensors")
    assert got.layers == (14,)
    with pytest.raises(IntervError) as caught:
        got.at(13)
    assert str(caught.value) == (
        "error[E229]: vector 'v' has no direction for layer 13\n  = layers of 'a.safetensors': 14"
    )


def test_loaded_arrays_cannot_be_written(tmp_path: Path) -> None:
    save_vectors(tmp_path / "a.gguf", {2: np.ones(4, np.float32)})
    with pytest.raises(ValueError, match="read-only"):
        load(tmp_path / "a.gguf").at(2)[0] = 3


def test_the_digest_is_of_layers_and_values(tmp_path: Path) -> None:
    one, two = np.ones(4, np.float32), np.full(4, 2, np.float32)
    files = {"a": {1: one}, "b": {2: one}, "c": {1: two}, "d": {1: one}}
    digests = {}
    for name, bank in files.items():
        save_vectors(tmp_path / f"{name}.gguf", bank, name)
        digests[name] = load(tmp_path / f"{name}.gguf").digest
    assert digests["a"] == digests["d"]
    assert len(set(digests.values())) == 3


def _gguf(path: Path, directions: dict[int, np.ndarray], count_type: str) -> None:
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    getattr(writer, f"add_{count_type}")("controlvector.layer_count", len(directions))
    for layer, vector in directions.items():
        writer.add_tensor(f"direction.{layer}", vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_repeng_shaped_files(tmp_path: Path) -> None:
    """repeng writes layers downwards, uint32 count, never layer 0."""
    bank = {layer: np.full(6, layer, np.float32) for layer in (3, 2, 1)}
    _gguf(tmp_path / "r.gguf", bank, "uint32")
    got = load(tmp_path / "r.gguf")
    assert (got.layers, got.hint, got.notes) == ((1, 2, 3), "llama", ())
    save_vectors(tmp_path / "again.gguf", got)
    fields = gguf.GGUFReader(tmp_path / "again.gguf")
    assert {t.name: t.data.tolist() for t in fields.tensors} == {
        f"direction.{i}": [float(i)] * 6 for i in (1, 2, 3)
    }
    assert fields.fields["general.architecture"].contents() == "controlvector"
    assert fields.fields["controlvector.layer_count"].contents() == 3


def test_llama_cpp_shaped_files_are_noted(tmp_path: Path) -> None:
    _gguf(tmp_path / "l.gguf", {1: np.ones(6, np.float32)}, "int32")
    assert load(tmp_path / "l.gguf").notes == (
        "written by llama.cpp's cvector-generator, which measures direction.N at the output of "
        "block N-1; it is applied at block N, as llama.cpp does",
    )


def test_direction_0_is_read_and_noted(tmp_path: Path) -> None:
    _gguf(tmp_path / "e.gguf", {0: np.ones(6, np.float32), 1: np.ones(6, np.float32)}, "uint32")
    got = load(tmp_path / "e.gguf")
    assert got.layers == (0, 1)
    assert got.notes == ("direction.0 is used here; llama.cpp refuses files that hold it",)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    save_vectors(tmp_path / "a.gguf", {1: np.ones(4, np.float32)})
    before = (tmp_path / "a.gguf").read_bytes()
    with pytest.raises(IntervError):
        save_vectors(tmp_path / "a.gguf", {0: np.ones(4, np.float32)})
    assert (tmp_path / "a.gguf").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.gguf"]
