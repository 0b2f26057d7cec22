"""`.npy` and `.npz`: arrays of numbers of any type and order, and nothing else."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from interv.errors import IntervError
from interv.vectors import numpy_file, read_vectors
from interv.vectors.raw import decode

DTYPES = ("<f2", "<f4", "<f8", ">f4", ">f8", "i1", "<i2", ">i4", "<i8", "u1", "<u2", "<u8", "?")


@settings(deadline=None, max_examples=60)
@given(dtype=st.sampled_from(DTYPES), data=st.data())
def test_arrays_of_every_type_and_order(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, data: st.DataObject
) -> None:
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=4))
    values = data.draw(hnp.arrays(np.int8, shape, elements=st.integers(0, 100))).astype(dtype)
    folder = tmp_path_factory.mktemp("a")
    for i, one in enumerate((values, values.T)):
        np.save(folder / f"{i}.npy", one)
        np.savez(folder / f"{i}.npz", x=one)
        np.savez_compressed(folder / f"{i}c.npz", x=one)
        got = [
            numpy_file.read_npy(folder / f"{i}.npy").tensors[""],
            numpy_file.read_npz(folder / f"{i}.npz").tensors["x"],
            numpy_file.read_npz(folder / f"{i}c.npz").tensors["x"],
        ]
        for raw in got:
            assert raw.shape == one.shape
            assert np.array_equal(decode(raw), one.astype(np.float32))


def _refused(path: Path) -> tuple[str, str]:
    with pytest.raises(IntervError) as caught:
        read_vectors(path)
    return caught.value.code, caught.value.notes[0]


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("pickle-was-run"),))


def test_objects_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    held = np.array([_Evil()], dtype=object)
    np.save("a.npy", held, allow_pickle=True)
    np.savez("a.npz", fine=np.ones(3), bad=held)
    said = "is an array of objects, which is a pickle; none is ever read"
    assert _refused(tmp_path / "a.npy") == ("E222", f"'a.npy' {said}")
    assert _refused(tmp_path / "a.npz") == ("E222", f"'bad' {said}")
    assert not Path("pickle-was-run").exists()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.ones(3, np.complex64), "'a.npy' is an array of type 'complex64', not of real numbers"),
        (
            np.zeros(2, [("x", "f4")]),
            "'a.npy' is an array of type '[('x', '<f4')]', not of real numbers",
        ),
        (np.array(["a", "b"]), "it holds an array of texts, not of numbers"),
    ],
)
def test_arrays_of_something_else(tmp_path: Path, value: Any, reason: str) -> None:
    np.save(tmp_path / "a.npy", value)
    assert _refused(tmp_path / "a.npy") == ("E222", reason)


def test_a_header_says_no_more_than_there_is(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(4, np.float32))
    (tmp_path / "a.npy").write_bytes(buffer.getvalue().replace(b"(4,)", b"(9,)"))
    assert _refused(tmp_path / "a.npy") == (
        "E222",
        "an array of shape [9] is not stored in 16 bytes",
    )


def test_an_archive_that_unpacks_to_more(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(1 << 20, np.float32))
    assert _refused(tmp_path / "a.npz") == (
        "E222",
        "it unpacks to more than 64 times its own size",
    )


def test_archives_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.txt", "hello")
    assert _refused(tmp_path / "a.npz") == ("E222", "it holds 'x.txt', which is no array of numpy")
    (tmp_path / "b.npz").write_bytes(b"PK no archive")
    assert _refused(tmp_path / "b.npz") == ("E222", "File is not a zip file")
