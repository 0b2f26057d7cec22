"""What an import refuses, in its exact words; and what it writes of that under `allow_inexact`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interv.errors import IntervError
from interv.importers import Options, import_file, write_import
from interv.importers.fields import LARGEST_BYTES
from interv.vectors import save_vectors
from tests.importers.ran import H, imported
from tests.importers.wrong import ADD, CASES, V0, V2, V, module, spec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_vectors(tmp_path / "v.safetensors", {1: np.ones(H, np.float32)})
    return tmp_path


def refusal(folder: Path, data: object, **options: Any) -> str:
    text = data if isinstance(data, str) else json.dumps(data)
    (folder / "source.json").write_text(text)
    with pytest.raises(IntervError) as caught:
        import_file(folder / "source.json", folder / "out.interv", Options(folder, **options), None)
    return str(caught.value).replace(str(folder), "DIR")


@pytest.mark.parametrize(("data", "message"), CASES.values(), ids=CASES)
def test_what_is_wrong_is_said(folder: Path, data: object, message: str) -> None:
    assert refusal(folder, data) == message


def test_all_that_is_wrong_is_said_at_once(folder: Path) -> None:
    said = refusal(folder, {"vectors": [V2 | {"scale": None}, V2 | {"x": 1}, V2 | {"layers": []}]})
    assert said.count("error[") == 2
    assert "'x' is not a field" in said
    assert "layers: a list that is not empty is wanted here" in said


NO_EQUAL = {
    "llama": (
        "pre_attn",
        "it reads the stream that enters the block and is first seen behind the attention",
    ),
    "gemma3": ("post_attn", "it reads the stream without the attention"),
    "gpt_neox": ("pre_attn", "the hook edits a value there that nothing reads"),
    "falcon": ("post_attn", "the hook edits a value there that nothing reads"),
    "phi": ("mlp_out", "this family has no such hook there"),
    "qwen3": ("mlp_in", "the input of an MLP is no site of the stream"),
}


@pytest.mark.parametrize(("family", "hook", "reason"), [(f, *x) for f, x in NO_EQUAL.items()])
def test_a_clamp_that_no_site_equals(folder: Path, family: str, hook: str, reason: str) -> None:
    data = module("clamps", [{"vector": V, "max": 1}], hook)
    assert refusal(folder, data, family=family) == (
        f"error[E261]: a clamp at '{hook}' has no exact equal here\n"
        f"  = in clamps.{hook}\n"
        f"  = {reason}\n"
        "  = --allow-inexact goes on, and notes that the clamps there are left out"
    )


def test_an_inexact_import_notes_what_it_left_out(folder: Path) -> None:
    data = {
        **module("clamps", [{"vector": V, "max": 1}], "pre_attn"),
        **module("vectors", V, "post_attn"),
    }
    made = imported(folder, data, family="llama", allow_inexact=True)
    noted = (
        "clamps.pre_attn: a clamp at 'pre_attn' is not the same here, for it reads the stream that "
        "enters the block and is first seen behind the attention; the clamps there are left out"
    )
    assert made.inexact == (noted,)
    assert made.text == (
        """\
interv 1
# from 'source.json', a RhizoNymph module
# 'post_attn' of the source is post_block here, where an addition does the same
# not exact: clamps.pre_attn: a clamp at 'pre_attn' is not the same here, for it reads the
#   stream that enters the block and is first seen behind the attention; the clamps there are
#   left out

vector base_post_attn = "out.vectors/base_post_attn.safetensors"

program out {
  steer base_post_attn at post_block[2]
}
"""
    )


def test_an_update_for_every_layer_needs_layers(folder: Path) -> None:
    from safetensors.numpy import save_file

    eye = {"weight": np.eye(H, dtype=np.float32)}
    save_file(eye, folder / "map.safetensors")
    data = V0 | {"local_path": "map.safetensors", "algorithm": "linear"}
    assert refusal(folder, data) == (
        "error[E261]: 'linear' without layers has no exact equal here\n"
        "  = in the request\n"
        "  = it is spread over the first 48 layers there\n"
        "  = --allow-inexact goes on, and notes that all layers of the model are edited"
    )
    made = imported(folder, data, allow_inexact=True)
    assert "apply map at post_block[*] when generated" in made.text


def test_a_map_behind_another_edit_is_refused(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.eye(H, dtype=np.float32)}, folder / "map.safetensors")
    mapped = V0 | {"path": "map.safetensors", "algorithm": "linear", "target_layers": [1]}
    del mapped["local_path"]
    data = {"vector_configs": [V0, mapped], "conflict_resolution": "sequential"}
    assert refusal(folder, data) == (
        "error[E261]: an overlap of vector_configs[0] and vector_configs[1] has no exact equal "
        "here\n"
        "  = in vector_configs[1]\n"
        "  = a linear map comes before all other edits of its site"
    )
    first = {"vector_configs": [mapped, V0], "conflict_resolution": "sequential"}
    assert len(imported(folder, first).spec.programs[0].statements) == 2


def test_unknown_families_and_formats(folder: Path) -> None:
    assert refusal(folder, spec(ADD), family="lama") == (
        "error[E211]: 'lama' is not a family\n"
        "  = families: llama, qwen3, gemma3, stablelm, opt, gpt_neox, gpt_neox_sequential, phi, "
        "falcon, commandr\n"
        "  = did you mean 'llama'?"
    )
    with pytest.raises(IntervError, match="'chatspce' is not a format"):
        import_file(folder / "x.json", folder / "x.interv", Options(folder), "chatspce")


def test_a_large_file_is_not_read(folder: Path) -> None:
    with (folder / "large.json").open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    with pytest.raises(IntervError, match=r"large.json' cannot be read: it is larger than 64 MiB"):
        import_file(folder / "large.json", folder / "x.interv", Options(folder))


def test_a_saved_object_runs_no_code(folder: Path) -> None:
    import pickle

    ran = folder / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (ran.write_text, ("code",))

    (folder / "bad.pkl").write_bytes(pickle.dumps({"layers": Hostile()}))
    with pytest.raises(IntervError) as caught:
        import_file(folder / "bad.pkl", folder / "x.interv", Options(folder))
    assert caught.value.code == "E222"
    assert not ran.exists()


def test_what_exists_is_kept(folder: Path) -> None:
    made = imported(folder, spec(ADD))
    before = made.target.read_text()
    with pytest.raises(IntervError, match=r"error\[E231\].*exists already"):
        write_import(made)
    write_import(made, force=True)
    assert made.target.read_text() == before
    with pytest.raises(IntervError) as caught:
        import_file(folder / "source.json", folder / "out.json", Options(folder))
    assert caught.value.message == f"'{folder / 'out.json'}' is not a text document"


def test_a_folder_that_takes_no_file(folder: Path) -> None:
    (folder / "source.json").write_text(json.dumps(V0))
    made = import_file(folder / "source.json", folder / "none" / "out.interv", Options(folder))
    with pytest.raises(IntervError) as caught:
        write_import(made)
    assert (caught.value.code, caught.value.notes) == ("E232", ("No such file or directory",))
