"""Cut and damaged vector files end in our own errors, whatever was hit."""

from __future__ import annotations

import io
import json
import pickle
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from interv.document.spec import VectorDecl
from interv.errors import IntervError, each
from interv.vectors import load_vector, save_vectors


def _gguf_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.gguf"
        save_vectors(path, {i: np.arange(1, 7, dtype=np.float32) for i in (1, 2)}, "tiny")
        return path.read_bytes()


def _safetensors_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.safetensors"
        save_vectors(path, {i: np.arange(1, 7, dtype=np.float32) for i in (1, 2)}, "tiny")
        return path.read_bytes()


def _pt_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save({i: torch.arange(1.0, 7.0) for i in (1, 2)}, buffer)
    return buffer.getvalue()


def _pkl_bytes() -> bytes:
    return pickle.dumps({i: np.arange(1, 7, dtype=np.float32) for i in (1, 2)})


def _npz_bytes() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{str(i): np.arange(1, 7, dtype=np.float32) for i in (1, 2)})
    return buffer.getvalue()


def _json_bytes() -> bytes:
    return json.dumps({"directions": {i: [1.0, 2.0, 3.0] for i in (1, 2)}}).encode()


FORMATS: dict[str, Callable[[], bytes]] = {
    "a.gguf": _gguf_bytes,
    "a.safetensors": _safetensors_bytes,
    "a.pt": _pt_bytes,
    "a.pkl": _pkl_bytes,
    "a.npz": _npz_bytes,
    "a.json": _json_bytes,
}


# The last tensor of 24 bytes is filled up to GGUF's alignment of 32; nothing reads that.
GGUF_PADDING = 8
# What is allocated for a file of less than 2 KiB, most of it for messages and caches of modules.
MOST_BYTES = 1 << 20


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_cut_files_are_refused(name: str, data: st.DataObject) -> None:
    whole = FORMATS[name]()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / name).write_bytes(whole[:cut])
        if name == "a.gguf" and cut >= len(whole) - GGUF_PADDING:
            assert load_vector(VectorDecl(name="v", path=name), Path(place)).layers == (1, 2)
        else:
            assert _outcome(Path(place), name) == "E222"


@pytest.mark.parametrize("name", FORMATS)
def test_the_whole_files_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FORMATS[name]())
    assert load_vector(VectorDecl(name="v", path=name), tmp_path).layers == (1, 2)


def test_a_signalling_nan_is_no_zero_direction(tmp_path: Path) -> None:
    rows = np.array([[0x7F800001, 0], [0, 0]], dtype="<u4").view("<f4")
    save_vectors(tmp_path / "a.pt", {1: rows[0], 2: rows[1]}, "tiny")
    with pytest.raises(IntervError) as caught:
        load_vector(VectorDecl(name="v", path="a.pt"), tmp_path)
    assert [one.code for one in each(caught.value)] == ["E225", "E226"]


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_changed_bytes_end_in_directions_or_an_error(name: str, data: st.DataObject) -> None:
    """No other exception, no crash, little memory: what cannot be read says so in our words."""
    broken = bytearray(FORMATS[name]())
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / name).write_bytes(broken)
        _outcome(Path(place), name)  # what is imported on the way is not the file's doing
        tracemalloc.start()
        outcome = _outcome(Path(place), name)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MOST_BYTES
    assert outcome in {"directions", *(f"E22{i}" for i in range(2, 9))}


def _outcome(folder: Path, name: str) -> str:
    try:
        got = load_vector(VectorDecl(name="v", path=name), folder)
    except IntervError as error:
        return error.code
    return "directions" if got.width > 0 and len(got.digest) == 64 else "nothing"
