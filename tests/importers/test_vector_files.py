"""Files of vectors become documents that read them and steer where their tool would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from interv.errors import IntervError
from interv.importers import Imported, Options, import_file, write_import
from interv.load import load_document
from interv.vectors import load_vector

H = 4
ONES = np.ones(H, np.float32)


def imported(path: Path, **options: Any) -> Imported:
    return import_file(path, path.parent / "out.interv", Options(root=path.parent, **options))


def body(made: Imported) -> str:
    """Return the document without its comments."""
    lines = [line for line in made.text.splitlines() if not line.startswith("#")]
    return "\n".join(lines)


def _write(path: Path) -> None:
    bank = {"1": [1.0] * H, "3": [2.0] * H}
    match path.suffix:
        case ".npy":
            np.save(path, np.ones((3, H), np.float32))
        case ".npz":
            np.savez(path, **{"1": ONES, "3": ONES})
        case ".safetensors":
            save_file({"layers.1": ONES, "layers.3": ONES}, path)
        case ".json":
            path.write_text(json.dumps(bank))
        case ".svec":
            held = {"model_type": "llama", "directions": bank, "explained_variances": {"1": 1}}
            path.write_text(json.dumps(held))
        case _:
            torch.save({1: torch.ones(H), 3: torch.ones(1, H)}, path)


@pytest.mark.parametrize(
    ("suffix", "place"),
    [
        (".npy", "post_block[*]"),
        (".npz", "post_block[1, 3]"),
        (".safetensors", "post_block[1, 3]"),
        (".json", "post_block[1, 3]"),
        (".svec", "pre_attn[1, 3]"),
        (".pt", "post_block[1, 3]"),
        (".pth", "post_block[1, 3]"),
        (".bin", "post_block[1, 3]"),
    ],
)
def test_every_format_becomes_a_document(tmp_path: Path, suffix: str, place: str) -> None:
    _write(tmp_path / f"a{suffix}")
    made = imported(tmp_path / f"a{suffix}")
    assert body(made) == (
        f'interv 1\n\nvector a = "a{suffix}"\n\nprogram out {{\n  steer a at {place}\n}}'
    )
    write_import(made)
    document = load_document(tmp_path / "out.interv")
    loaded = load_vector(document.spec.vectors[0], document.root)
    assert loaded.width == H


def test_rows_of_a_persona_are_hidden_states(tmp_path: Path) -> None:
    torch.save(torch.ones(5, H), tmp_path / "evil_response_avg_diff.pt")
    made = imported(tmp_path / "evil_response_avg_diff.pt", name="evil")
    assert body(made).endswith(
        'vector evil_response_avg_diff = "evil_response_avg_diff.pt" rows hidden_states\n\n'
        "program evil {\n  steer evil_response_avg_diff at post_block[*]\n}"
    )


def test_rows_of_nobody_say_what_was_taken(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, H), np.float32))
    assert imported(tmp_path / "a.npy").remarks == (
        "row i is taken for block i; add 'rows hidden_states' to the vector where row 0 is the "
        "embedding",
        "the file does not say at which layers to steer: '*' is every one",
    )


def test_the_name_of_caas_file_says_the_layer(tmp_path: Path) -> None:
    torch.save(torch.ones(H), tmp_path / "vec_layer_13_Llama-2-7b-chat-hf.pt")
    made = imported(tmp_path / "vec_layer_13_Llama-2-7b-chat-hf.pt")
    assert "at post_block[13]" in made.text


def test_several_tensors_need_a_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", W_dec=np.ones((3, H)), b=ONES)
    with pytest.raises(IntervError) as caught:
        imported(tmp_path / "a.npz")
    assert caught.value.code == "E224"
    assert caught.value.helps[0] == ('choose a feature of a sparse autoencoder: key "W_dec" row 17')
