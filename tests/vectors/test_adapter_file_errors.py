"""Every way in which an adapter's one file can be wrong has its exact message."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.numpy import save_file

from interv.document.spec import AdapterDecl
from interv.errors import IntervError
from interv.vectors import load_adapter
from tests.vectors.made import lines, lm_steer_file, lm_steer_state, refused

FORMS = "read, bias, write (low rank) or weight, bias (linear), each behind layer.N. or alone"
ONES = torch.ones(100_000)
SQUARE = np.ones((4, 4), np.float32)


def test_layers_that_differ(tmp_path: Path) -> None:
    wide = {f"layer.{i}.{n}": SQUARE[:, : 4 - i] for i in (0, 1) for n in ("read", "write")}
    high = {f"layer.{i}.{n}": SQUARE[: 4 - i] for i in (0, 1, 2) for n in ("read", "write")}
    save_file(wide, tmp_path / "wide.safetensors")
    save_file(high, tmp_path / "high.safetensors")
    assert refused(tmp_path, "wide.safetensors") == lines(
        "E228 'wide.safetensors' has updates of different widths",
        "width 3 at layer 1",
        "width 4 at layer 0",
    )
    assert refused(tmp_path, "high.safetensors") == lines(
        "E235 'high.safetensors' has updates of different ranks",
        "rank 2 at layer 2",
        "rank 3 at layer 1",
        "rank 4 at layer 0",
    )


def test_zero_maps(tmp_path: Path) -> None:
    save_file({"weight": SQUARE * 0, "bias": SQUARE[0]}, tmp_path / "a.safetensors")
    save_file({"read": SQUARE[:0], "write": SQUARE[:0]}, tmp_path / "b.safetensors")
    for name in ("a.safetensors", "b.safetensors"):
        assert refused(tmp_path, name) == lines(f"E226 '{name}' holds an update of zero")


def test_several_steers(tmp_path: Path) -> None:
    lm_steer_file(tmp_path / "a.pt", lm_steer_state(3, 8, 2))
    assert refused(tmp_path, "a.pt") == lines(
        "E234 'a.pt' holds 3 steers, and an adapter is one",
        "'projector1' has shape [3, 8, 2]: [steers, H, rank]",
        "save the one that is meant as [H, rank]",
    )


def test_lm_steer_of_other_kinds_and_shapes(tmp_path: Path) -> None:
    state = lm_steer_state(1, 8, 2)
    lm_steer_file(tmp_path / "a.pt", {"add_vec": torch.ones(1, 8)})
    lm_steer_file(tmp_path / "b.pt", {"projector1": state["projector1"]})
    lm_steer_file(tmp_path / "c.pt", state | {"projector2": torch.ones(1, 8, 3)})
    assert refused(tmp_path, "a.pt") == lines(
        "E234 'a.pt': LM-Steer's 'add_vec' cannot be applied",
        "tensors that can: projector1, projector2",
    )
    assert refused(tmp_path, "b.pt") == lines(
        "E223 'b.pt' holds no tensor 'projector2'", "tensors there: projector1"
    )
    assert refused(tmp_path, "c.pt") == lines(
        "E227 'projector2' in 'c.pt' has shape [1, 8, 3]",
        "wanted: [1, H, rank] or [8, 2], as 'projector1'",
    )


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, ["E223 'a.safetensors' holds no tensors"]),
        (
            {"layer.3.read": SQUARE, "layer.3.bias": SQUARE[0]},
            [
                "E223 'a.safetensors' holds no tensor 'layer.3.write'",
                "tensors there: layer.3.bias, layer.3.read",
            ],
        ),
        (
            {"layer.3.bias": SQUARE[0]},
            [
                "E223 'a.safetensors' holds no tensor 'layer.3.weight'",
                "tensors there: layer.3.bias",
            ],
        ),
        (
            {"layer.3.weight": SQUARE, "mean": SQUARE[0]},
            [
                "E235 'a.safetensors' holds 'mean', which is no part of an adapter",
                "tensors there: layer.3.weight, mean",
                f"an adapter has {FORMS}",
            ],
        ),
        (
            {"weight": SQUARE, "layer.3.weight": SQUARE},
            [
                "E235 'a.safetensors' holds an update for every layer beside those of single "
                "layers",
                "tensors there: layer.3.weight, weight",
            ],
        ),
        (
            {"layer.3.weight": SQUARE, "layer.3.read": SQUARE, "layer.3.write": SQUARE},
            [
                "E235 'a.safetensors' holds low-rank updates and linear maps at layer 3",
                f"an adapter has {FORMS}",
            ],
        ),
        (
            {"layer.3.weight": SQUARE, "layer.4.read": SQUARE, "layer.4.write": SQUARE},
            [
                "E235 'a.safetensors' holds low-rank updates and linear maps",
                f"an adapter has {FORMS}",
            ],
        ),
        (
            {"weight": SQUARE[:3]},
            ["E227 'weight' in 'a.safetensors' has shape [3, 4]", "wanted: [H, H]"],
        ),
        (
            {"weight": SQUARE, "bias": SQUARE[0, :3]},
            ["E227 'bias' in 'a.safetensors' has shape [3]", "wanted: [H], here [4]"],
        ),
        (
            {"read": SQUARE, "write": SQUARE[:2]},
            [
                "E227 'write' in 'a.safetensors' has shape [2, 4]",
                "wanted: [4, 4], as 'read'",
            ],
        ),
    ],
)
def test_plain_tensors(tmp_path: Path, tensors: dict[str, np.ndarray], message: list[str]) -> None:
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(contiguous, tmp_path / "a.safetensors")
    assert refused(tmp_path, "a.safetensors") == lines(message[0], *message[1:])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1], "it holds a list, not a dict of tensors"),
        (torch.ones(4), "it holds a Tensor, not a dict of tensors"),
        ({"read": 3}, "its entry 'read' is a int, not a tensor"),
        (
            {str(i): ONES for i in range(5)},
            "its tensors are more than 4 times larger than the file",
        ),
        ({1: torch.ones(1), "1": torch.ones(1)}, "it holds '1' twice"),
        (
            {"weight": torch.ones(1).expand(2**15, 2**15)},
            "a tensor of shape [32768, 32768] is not stored densely in it",
        ),
        (
            {"weight": torch.ones(1).expand(20, 20)},
            "a tensor of shape [20, 20] is not stored densely in it",
        ),
        (
            {"weight": torch.ones(2, 2, dtype=torch.complex64)},
            "a tensor of type torch.complex64 is not an array of numbers",
        ),
    ],
)
def test_torch_files_that_hold_something_else(tmp_path: Path, value: object, reason: str) -> None:
    torch.save(value, tmp_path / "a.pt")
    assert refused(tmp_path, "a.pt") == lines("E222 'a.pt' is not a valid pt file", reason)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_changed_bytes_end_in_an_adapter_or_an_error(data: st.DataObject) -> None:
    """No other exception, no crash: what cannot be read says so in our words."""
    buffer = io.BytesIO()
    torch.save({"read": torch.eye(3), "write": torch.eye(3)}, buffer)
    broken = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "a.pt").write_bytes(broken)
        try:
            got = load_adapter(AdapterDecl(name="style", path="a.pt"), Path(place))
            outcome = "adapter" if got.rank == got.width == 3 else "nothing"
        except IntervError as error:
            outcome = error.code
    assert outcome in {"adapter", "E222", "E223", "E225", "E226", "E227", "E235"}
