"""Every way in which a vector file can be wrong has its exact message."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from interv.document.spec import VectorDecl
from interv.errors import IntervError, Source, Span
from interv.vectors import load_vector, save_vectors

ONES = np.ones(4, np.float32)
NAMED = (
    "a bank has all of them named by layers, as in: layer.10, 10, layer_10, model.layers.10, "
    "blocks.10.hook_resid_post, direction.10"
)


def refused(folder: Path, path: str, **options: Any) -> str:
    with pytest.raises(IntervError) as caught:
        load_vector(VectorDecl(name="calm", path=path, **options), folder)
    return str(caught.value)


def lines(*parts: str) -> str:
    return "\n  = ".join(parts)


def test_points_at_the_declaration(tmp_path: Path) -> None:
    text = 'interv 1\nvector calm = "clam.gguf"\n'
    span = Span(Source("a.interv", text), 23, 34)
    save_vectors(tmp_path / "calm.gguf", {1: ONES})
    save_file({"x": ONES}, tmp_path / "other.safetensors")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(IntervError) as caught:
        load_vector(VectorDecl(name="calm", path="clam.gguf"), tmp_path, span)
    assert str(caught.value) == (
        "error[E220]: vector 'calm': 'clam.gguf' does not exist\n"
        " --> a.interv:2:15\n"
        "  |\n"
        '2 | vector calm = "clam.gguf"\n'
        "  |               ^^^^^^^^^^^\n"
        "  |\n"
        "  = vector files in its folder: calm.gguf, other.safetensors\n"
        "  = did you mean 'calm.gguf'?"
    )


def test_missing_folder(tmp_path: Path) -> None:
    assert refused(tmp_path, "vectors/calm.gguf") == lines(
        "error[E220]: vector 'calm': 'vectors/calm.gguf' does not exist",
        "there is no folder 'vectors'",
    )


def test_folder_instead_of_file(tmp_path: Path) -> None:
    (tmp_path / "calm.gguf").mkdir()
    assert refused(tmp_path, "calm.gguf") == (
        "error[E220]: vector 'calm': 'calm.gguf' is not a file"
    )


def test_unknown_suffix(tmp_path: Path) -> None:
    assert refused(tmp_path, "calm.safetensor") == lines(
        "error[E221]: vector 'calm': 'calm.safetensor' is not a vector file by its suffix "
        "'.safetensor'",
        "suffixes: .bin, .gguf, .json, .npy, .npz, .pickle, .pkl, .pt, .pth, .safetensors, .svec",
        "did you mean '.safetensors'?",
    )


def test_absolute_paths_and_parents_resolve(tmp_path: Path) -> None:
    (tmp_path / "doc").mkdir()
    save_vectors(tmp_path / "calm.gguf", {1: ONES})
    for path in ("../calm.gguf", str(tmp_path / "calm.gguf")):
        got = load_vector(VectorDecl(name="calm", path=path), tmp_path / "doc")
        assert got.layers == (1,)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.gguf", b"", "it is empty"),
        ("a.gguf", b"GGML" + bytes(40), "it does not start with 'GGUF'"),
        ("a.gguf", b"GGUF" + struct.pack("<I", 9), "it is of GGUF version 9; 2 and 3 can be read"),
        ("a.gguf", b"GGUF\x03\0\0\0\1", "it ends at byte 9, inside its header"),
        (
            "a.gguf",
            b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0),
            "it ends at byte 24, inside its header",
        ),
        (
            "a.gguf",
            b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 2**60),
            "it ends at byte 49, inside its header",
        ),
        (
            "a.pt",
            b"\x80\x02}q\x00.",
            "it is not an archive of torch 1.6 or later; load and save it again with torch",
        ),
        ("a.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", None),
        ("a.safetensors", b"", None),
    ],
)
def test_not_a_file_of_its_format(
    tmp_path: Path, name: str, data: bytes, reason: str | None
) -> None:
    (tmp_path / name).write_bytes(data)
    kind = name.removeprefix("a.")
    message = f"error[E222]: vector 'calm': '{name}' is not a valid {kind} file"
    found = refused(tmp_path, name)
    # The reason inside safetensors is in that package's words.
    assert found == lines(message, reason) if reason else found.startswith(message + "\n  = Error")


def test_gguf_that_declares_more_than_it_holds(tmp_path: Path) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    tensor = struct.pack("<Q11sIQIQ", 11, b"direction.1", 1, 2**40, 0, 0)
    (tmp_path / "a.gguf").write_bytes(head + tensor + bytes(64))
    assert refused(tmp_path, "a.gguf") == lines(
        "error[E222]: vector 'calm': 'a.gguf' is not a valid gguf file",
        "it ends at byte 131, inside its tensor 'direction.1'",
    )


def test_quantised_gguf_is_refused_by_type(tmp_path: Path) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    tensor = struct.pack("<Q11sIQIQ", 11, b"direction.1", 1, 32, 2, 0)
    (tmp_path / "a.gguf").write_bytes(head + tensor + bytes(64))
    assert refused(tmp_path, "a.gguf") == lines(
        "error[E222]: vector 'calm': 'direction.1' in 'a.gguf': element type 'ggml type 2' "
        "cannot be read as a direction",
        "readable: F64, F32, F16, BF16, I64, I32, I16, I8, U8",
    )


def test_unknown_key(tmp_path: Path) -> None:
    save_file({"probe.13": ONES, "probe.14": ONES}, tmp_path / "a.safetensors")
    assert refused(tmp_path, "a.safetensors", key="prob.14") == lines(
        "error[E223]: vector 'calm': 'a.safetensors' holds no tensor 'prob.14'",
        "tensors there: probe.13, probe.14",
        "did you mean 'probe.14'?",
    )


def test_no_tensors(tmp_path: Path) -> None:
    save_file({}, tmp_path / "a.safetensors")
    assert refused(tmp_path, "a.safetensors") == (
        "error[E223]: vector 'calm': 'a.safetensors' holds no tensors"
    )


def test_several_tensors_and_no_key(tmp_path: Path) -> None:
    save_file({f"p.{i:02}": ONES for i in range(14)}, tmp_path / "a.safetensors")
    shown = ", ".join(f"p.{i:02}" for i in range(12))
    assert refused(tmp_path, "a.safetensors") == lines(
        "error[E224]: vector 'calm': 'a.safetensors' holds 14 tensors, and no key says which is "
        "meant",
        f"tensors there: {shown} and 2 more",
        'choose one: key "p.00"',
        NAMED,
    )


def test_layers_beside_other_tensors_need_a_key(tmp_path: Path) -> None:
    save_file({"layer.1": ONES, "mean": ONES}, tmp_path / "a.safetensors")
    assert refused(tmp_path, "a.safetensors").startswith(
        "error[E224]: vector 'calm': 'a.safetensors' holds 2 tensors, and no key"
    )


def test_gguf_without_directions_is_not_silently_empty(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "steervector")
    writer.add_tensor("vector.0", ONES)
    writer.add_tensor("vector.1", ONES)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert refused(tmp_path, "a.gguf") == lines(
        "error[E224]: vector 'calm': 'a.gguf' holds 2 tensors, and no key says which is meant",
        "tensors there: vector.0, vector.1",
        'choose one: key "vector.0"',
        NAMED,
    )


def test_nan_and_zero_name_their_layers_in_one_run(tmp_path: Path) -> None:
    bank = {f"layer.{i}": ONES.copy() for i in range(8)}
    bank["layer.2"][1], bank["layer.3"][0] = np.nan, np.inf
    bank["layer.5"][:] = 0
    save_file(bank, tmp_path / "a.safetensors")
    assert refused(tmp_path, "a.safetensors") == (
        "error[E225]: vector 'calm': 'a.safetensors' holds NaN or infinity at layers 2, 3\n\n"
        "error[E226]: vector 'calm': 'a.safetensors' holds a zero direction at layer 5"
    )


def test_float64_beyond_float32_is_infinite(tmp_path: Path) -> None:
    save_file({"x": np.full(4, 1e200)}, tmp_path / "a.safetensors")
    assert refused(tmp_path, "a.safetensors") == (
        "error[E225]: vector 'calm': 'a.safetensors' holds NaN or infinity"
    )


def test_wrong_rank(tmp_path: Path) -> None:
    save_file({"x": np.ones((2, 2, 2), np.float32)}, tmp_path / "a.safetensors")
    save_file({"layer.1": np.ones((2, 2), np.float32)}, tmp_path / "b.safetensors")
    assert refused(tmp_path, "a.safetensors") == lines(
        "error[E227]: vector 'calm': 'x' in 'a.safetensors' has shape [2, 2, 2]",
        "a direction has shape [H] or [L, H]",
    )
    assert refused(tmp_path, "b.safetensors") == lines(
        "error[E227]: vector 'calm': 'layer.1' in 'b.safetensors' has shape [2, 2]",
        "a direction has shape [H]",
    )


def test_widths_differ(tmp_path: Path) -> None:
    bank = {"layer.1": ONES, "layer.2": ONES, "layer.3": np.ones(5, np.float32)}
    save_file(bank, tmp_path / "a.safetensors")
    assert refused(tmp_path, "a.safetensors") == lines(
        "error[E228]: vector 'calm': 'a.safetensors' has directions of different widths",
        "width 4 at layers 1, 2",
        "width 5 at layer 3",
    )


def test_no_values(tmp_path: Path) -> None:
    save_file({"x": np.ones(0, np.float32)}, tmp_path / "a.safetensors")
    assert refused(tmp_path, "a.safetensors") == lines(
        "error[E228]: vector 'calm': 'a.safetensors' has no values", "width 0"
    )


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("pickle-was-run"),))


def test_pickled_code_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({1: _Evil()}, tmp_path / "a.pt")
    assert refused(tmp_path, "a.pt") == lines(
        "error[E222]: vector 'calm': 'a.pt' is not a valid pt file",
        "its pickle asks to call '__builtin__.getattr'; nothing in a pickle is ever called",
    )
    (tmp_path / "b.pt").write_bytes(pickle.dumps(_Evil()))
    assert "error[E222]" in refused(tmp_path, "b.pt")
    assert not (tmp_path / "pickle-was-run").exists()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (["x", 2], "it holds a list, not a tensor or a dict of tensors"),
        ({"x": 3}, "its entry 'x' is a int, not a tensor"),
        (
            torch.ones(1).expand(2**30),
            "a tensor of shape [1073741824] is not stored densely in it",
        ),
        ({3: torch.ones(2), "layer.3": torch.ones(2)}, "it holds 'layer.3' twice"),
        ({"3": torch.ones(2), "layer.3": torch.ones(2)}, "it holds layer 3 twice"),
        (
            torch.ones(3, dtype=torch.complex64),
            "a tensor of type torch.complex64 is not a direction",
        ),
    ],
)
def test_pt_that_holds_something_else(tmp_path: Path, value: object, reason: str) -> None:
    torch.save(value, tmp_path / "a.pt")
    assert refused(tmp_path, "a.pt") == lines(
        "error[E222]: vector 'calm': 'a.pt' is not a valid pt file", reason
    )


def test_pt_archive_that_unpacks_to_more(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 22))
    assert refused(tmp_path, "a.pt") == lines(
        "error[E222]: vector 'calm': 'a.pt' is not a valid pt file",
        "its archive unpacks to more than the file's own size",
    )


def test_gguf_cannot_hold_everything(tmp_path: Path) -> None:
    with pytest.raises(IntervError) as caught:
        save_vectors(tmp_path / "a.gguf", {0: ONES, 1: ONES})
    assert str(caught.value) == lines(
        "error[E230]: 'a.gguf': a GGUF control vector cannot hold layer 0",
        "llama.cpp refuses the whole file when it meets 'direction.0'",
        "leave layer 0 out (convert --drop), or write it as .safetensors",
    )
    save_file({"x": ONES}, tmp_path / "x.safetensors")
    one = load_vector(VectorDecl(name="x", path="x.safetensors"), tmp_path)
    with pytest.raises(IntervError) as caught:
        save_vectors(tmp_path / "a.gguf", one)
    assert str(caught.value) == lines(
        "error[E230]: 'a.gguf': a GGUF control vector cannot hold one direction for all layers",
        "write it as .safetensors",
    )


def test_pickles_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(IntervError) as caught:
        save_vectors(tmp_path / "a.pkl", {1: ONES})
    assert str(caught.value) == lines(
        "error[E221]: 'a.pkl' cannot be written by its suffix '.pkl'",
        "written: .gguf, .pt, .safetensors",
    )


@pytest.mark.parametrize("name", ["a.gguf", "a.pt", "a.safetensors"])
def test_a_folder_that_is_not_there_is_not_written_to(tmp_path: Path, name: str) -> None:
    path = tmp_path / "nowhere" / name
    with pytest.raises(IntervError) as caught:
        save_vectors(path, {1: ONES})
    assert str(caught.value) == lines(
        f"error[E232]: '{path}' cannot be written", "No such file or directory"
    )
