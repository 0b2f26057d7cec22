"""Folders that anybody may have made: a clear error, little memory, nothing outside is read."""

from __future__ import annotations

import json
import os
import re
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import save_file

from interv.captures import load_captures
from interv.captures.scan import scan
from interv.errors import IntervError
from interv.sinks.schema import FORMAT, MANIFEST
from tests.captures.made import folder
from tests.sinks.made import captured, filesystem, part

NAME = "cmpl-1.0.look.4.post_block.12_20.safetensors"
# What is allocated for a small file, most of it for messages and caches of modules.
MOST_BYTES = 4 << 20


def one_file(**options: Any) -> bytes:
    """Return the bytes of a file with two places of 5 rows."""
    with tempfile.TemporaryDirectory() as place:
        sink = filesystem(Path(place), **options)
        sink.put(captured())
        sink.close()
        return (Path(place) / NAME).read_bytes()


WHOLE = one_file()


def labels() -> dict[str, Any]:
    """Return the labels of that file's record, as JSON gives them."""
    size = int.from_bytes(WHOLE[:8], "little")
    header = json.loads(WHOLE[8 : 8 + size])
    found: dict[str, Any] = json.loads(header["__metadata__"]["records"])[0]
    return found


def tensors() -> dict[str, torch.Tensor]:
    position = torch.arange(5)
    return {
        "post_block.12.rows": torch.zeros(5, 8, dtype=torch.bfloat16),
        "post_block.20.rows": torch.zeros(5, 8, dtype=torch.bfloat16),
        "tokens.0.position": position,
        "tokens.0.token_id": position.clone(),
    }


def write(place: Path, record: Any, held: dict[str, torch.Tensor]) -> None:
    text = record if isinstance(record, str) else json.dumps([record])
    save_file(held, place / NAME, metadata={"format": FORMAT, "records": text})


def outcome(place: Path) -> str:
    """Read everything; return the code of the error, or "" where all of it can be read."""
    try:
        read(place)
        scan(place)
    except IntervError as error:
        return error.code
    return ""


def read(place: Path) -> None:
    captures = load_captures(place, most_mib=1)
    assert len(captures.rows) == len(captures.position) == len(captures.token_id)


def test_files_of_ours_made_by_hand_are_read(tmp_path: Path) -> None:
    write(tmp_path, labels(), tensors())
    assert load_captures(tmp_path).rows.shape == (10, 8)


Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], object]
WRONG: dict[str, tuple[Change, str]] = {
    "a missing tensor": (
        lambda record, held: held.pop("post_block.20.rows"),
        "it has no tensor 'post_block.20.rows'",
    ),
    "a wrong dtype": (
        lambda record, held: held.update({"post_block.12.rows": torch.zeros(5, 8)}),
        "tensor 'post_block.12.rows' is F32 [5, 8], not BF16 [5, 8]",
    ),
    "a wrong shape": (
        lambda record, held: record["parts"][0].update(shape=[5, 9]),
        "tensor 'post_block.12.rows' is BF16 [5, 8], not BF16 [5, 9]",
    ),
    "too few positions": (
        lambda record, held: held.update({"tokens.0.position": torch.arange(4)}),
        "tensor 'tokens.0.position' is I64 [4], not I64 [5]",
    ),
    "positions of another type": (
        lambda record, held: held.update({"tokens.0.token_id": torch.zeros(5)}),
        "tensor 'tokens.0.token_id' is F32 [5], not I64 [5]",
    ),
    "positions that go back": (
        lambda record, held: held.update({"tokens.0.position": torch.tensor([0, 1, 3, 2, 4])}),
        "the positions of post_block[12] do not ascend",
    ),
    "negative positions": (
        lambda record, held: held.update({"tokens.0.position": torch.arange(-1, 4)}),
        "the positions of post_block[12] do not ascend",
    ),
    "an unknown form": (
        lambda record, held: record["parts"][0].update(form="zip"),
        "its labels are wrong at records.0.parts.0.form: "
        "input should be 'whole', 'low_rank', 'int8' or 'fp8'",
    ),
    "a form without its tensors": (
        lambda record, held: record["parts"][0].update(form="int8"),
        "it has no tensor 'post_block.12.q'",
    ),
    "a rank without factors": (
        lambda record, held: record["parts"][0].update(form="low_rank"),
        "its labels are wrong at records.0.parts.0: value error, a rank goes with the form "
        "low_rank, and is at least 1",
    ),
    "an unknown site": (
        lambda record, held: record["parts"][0].update(site="resid"),
        "its labels are wrong at records.0.parts.0.site: "
        "input should be 'pre_attn', 'post_attn' or 'post_block'",
    ),
    "a field that is not ours": (
        lambda record, held: record.update(more=1),
        "its labels are wrong at records.0.more: extra inputs are not permitted",
    ),
    "a place that is there twice": (
        lambda record, held: record["parts"].append(record["parts"][0]),
        "its labels are wrong at records.0: value error, a place is listed twice",
    ),
    "an error that is not a number": (
        lambda record, held: record["parts"][0].update(error=float("nan")),
        "its labels are wrong at records.0.parts.0.error: input should be a finite number",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_labels_that_are_not_true(name: str, tmp_path: Path) -> None:
    change, reason = WRONG[name]
    record, held = labels(), tensors()
    change(record, held)
    write(tmp_path, record, held)
    with pytest.raises(IntervError) as error:
        read(tmp_path)
    assert error.value.code == "E273"
    assert error.value.message == f"'{tmp_path / NAME}' is not a file of captured rows"
    assert error.value.notes == (reason,)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[", "[{}]", '[], "more": 1', "[" * 100000])
def test_labels_that_are_no_records(text: str, tmp_path: Path) -> None:
    write(tmp_path, text, tensors())
    assert outcome(tmp_path) == "E273"


def test_factors_that_would_unpack_to_much(tmp_path: Path) -> None:
    """Two small factors of rows that no memory holds are refused before they are multiplied."""
    count, width = 100_000, 100_000
    record = labels()
    record["parts"] = [
        {
            **record["parts"][0],
            "shape": [count, width],
            "form": "low_rank",
            "rank": 1,
        }
    ]
    held = {
        "post_block.12.us": torch.zeros(count, 1, dtype=torch.bfloat16),
        "post_block.12.v": torch.zeros(1, width, dtype=torch.bfloat16),
        "tokens.0.position": torch.arange(count),
        "tokens.0.token_id": torch.arange(count),
    }
    write(tmp_path, record, held)
    with pytest.raises(IntervError) as error:
        _ = load_captures(tmp_path).rows
    assert error.value.code == "E277"
    assert error.value.message == "these rows take 19073 MiB, 8192 are allowed"


@settings(deadline=None, max_examples=150)
@given(st.integers(0, len(WHOLE) - 1))
def test_cut_files_are_refused(cut: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / NAME).write_bytes(WHOLE[:cut])
        # So short that it does not even begin as ours: it is left out, and nothing is left.
        assert outcome(Path(place)) in ("E273", "E275")


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damaged_files_end_in_our_errors_and_little_memory(data: st.DataObject) -> None:
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / NAME).write_bytes(damaged)
        tracemalloc.start()
        try:
            assert outcome(Path(place)) in ("", "E273", "E275", "E277")
            assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
        finally:
            tracemalloc.stop()


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_damaged_manifests_end_in_our_errors(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        sink = filesystem(Path(place))
        sink.put(captured())
        sink.close()
        path = Path(place) / MANIFEST
        damaged = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 6))):
            at = data.draw(st.integers(0, len(damaged) - 1))
            damaged[at] = data.draw(st.integers(0, 255))
        path.write_bytes(damaged)
        assert outcome(Path(place)) in ("", "E273", "E274", "E275", "E276", "E279")


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/secret.safetensors", "..", "a/b", "\x1b[2J.safetensors"]
)
def test_a_manifest_that_leads_out(name: str, tmp_path: Path) -> None:
    secret = folder(tmp_path / "secret")
    (tmp_path / "secret.safetensors").write_bytes(next(secret.glob("*.safetensors")).read_bytes())
    place = folder(tmp_path / "acts")
    _change(place, lambda line: line.update(file=name))
    with pytest.raises(IntervError) as error:
        load_captures(place)
    assert str(error.value) == (
        f"error[E279]: the manifest of '{place}' names a file outside of it\n"
        f"  = it names {json.dumps(name)}"
    )


def _change(place: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest's line of the last file."""
    path = place / MANIFEST
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    last = [line for line in lines if line["event"] == "file"][-1]
    change(last)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_links_that_lead_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(WHOLE)
    place = folder(tmp_path / "acts")
    (place / "link.safetensors").symlink_to(outside)
    assert len(load_captures(place)) == 29
    assert load_captures(place).incomplete == ('"link.safetensors" is not of a capture',)
    _change(place, lambda line: line.update(file="link.safetensors", bytes=len(WHOLE)))
    with pytest.raises(IntervError, match="names a file outside of it"):
        load_captures(place)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    place = folder(tmp_path / "acts")
    os.mkfifo(place / "pipe.safetensors")
    assert load_captures(place).incomplete == ('"pipe.safetensors" is not of a capture',)
    _change(place, lambda line: line.update(file="pipe.safetensors", bytes=0))
    with pytest.raises(IntervError, match=re.escape("is in the manifest and not there")):
        load_captures(place)


def test_manifests_that_lie(tmp_path: Path) -> None:
    place = folder(tmp_path / "acts")
    path = place / "blue.b.1.look.4.post_block.12.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(IntervError) as error:
        load_captures(place)
    assert str(error.value) == (
        f"error[E274]: '{path}' has {len(whole) - 3} bytes, {len(whole)} in the manifest\n"
        "  = it was cut or replaced"
    )
    path.unlink()
    with pytest.raises(IntervError) as error:
        load_captures(place)
    assert str(error.value) == (
        f"error[E274]: '{path}' is in the manifest and not there\n"
        "  = put the file back, or delete its line from manifest.jsonl"
    )
    path.write_bytes(whole)
    _change(place, lambda line: line["records"][0].update(prompt_tokens=4))
    assert len(load_captures(place, request="a")) == 18  # only what is asked for is opened
    with pytest.raises(IntervError) as error:
        load_captures(place)
    assert str(error.value) == (
        f"error[E274]: '{path}' has other labels than the manifest says\n"
        "  = it was replaced, or the manifest was"
    )


def test_folders_without_captures(tmp_path: Path) -> None:
    with pytest.raises(IntervError) as error:
        load_captures(tmp_path / "none")
    assert str(error.value) == (
        f"error[E275]: '{tmp_path}/none' cannot be read: no such file or directory"
    )
    with pytest.raises(IntervError) as error:
        load_captures(tmp_path)
    assert str(error.value) == (
        f"error[E275]: '{tmp_path}' holds no captured rows\n"
        '  = give the folder that a sink writes to: filesystem("acts/")'
    )


def test_a_very_long_line_is_one_wrong_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interv.sinks.manifest.LONGEST_LINE", 4096)
    place = folder(tmp_path)
    with (place / MANIFEST).open("a") as file:
        file.write("x" * 20000 + "\n")
    sink = filesystem(place)
    sink.put(captured(part(0), request="c"))
    sink.close()
    assert scan(place).incomplete == ("line 6 of manifest.jsonl is torn",)
    assert len(load_captures(place, request="c")) == 5
