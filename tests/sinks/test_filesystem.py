"""Files of the filesystem sink: what is in them, how they are named, and how they appear."""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st
from safetensors import safe_open

from interv.errors import IntervError
from interv.sinks import publish as publishing
from interv.sinks.container import encode, write
from interv.sinks.publish import LONGEST_SLUG, slug, write_part
from interv.sinks.record import Captured
from tests.sinks.made import captured, disk_is_full, equal, filesystem, names, part, put, read

LAYOUTS = ("packed", "per_file", "sharded")


def mixed(**labels: object) -> Captured:
    """Return a record whose parts share tokens, and one that does not."""
    return captured(
        part(12),
        part(12, after=True),
        part(3, 2, site="pre_attn", start=9, dtype=torch.float32),
        **{"tag": "a run", "rank": None, **labels},
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_records_come_back(layout: str, tmp_path: Path) -> None:
    sink = filesystem(tmp_path / "acts", layout=layout)
    put(sink, mixed())
    sink.close()
    records = read(tmp_path / "acts")
    if layout == "per_file":
        assert [len(record.parts) for record in records] == [1, 1, 1]
        parts = tuple(sorted((one.parts[0] for one in records), key=lambda one: one.name))
        whole = mixed()
        expected = captured(*sorted(whole.parts, key=lambda one: one.name), tag="a run", tokens=12)
        assert equal(captured(*parts, tag="a run", tokens=12), expected)
    else:
        assert len(records) == 1
        assert equal(records[0], mixed())


def test_a_file_says_what_it_is_to_any_reader(tmp_path: Path) -> None:
    sink = filesystem(tmp_path, quantize="int8")
    stored = sink.put(mixed())
    assert isinstance(stored, dict)
    with safe_open(stored["path"], framework="pt") as file:
        assert file.metadata()["format"] == "interv captures 1"
        (record,) = json.loads(file.metadata()["records"])
        assert sorted(file.keys()) == [
            "post_block.12.after.q",
            "post_block.12.after.scale",
            "post_block.12.q",
            "post_block.12.scale",
            "pre_attn.3.q",
            "pre_attn.3.scale",
            "tokens.0.position",
            "tokens.0.token_id",
            "tokens.1.position",
            "tokens.1.token_id",
        ]
        assert file.get_tensor("tokens.1.position").tolist() == [9, 10]
        assert file.get_tensor("tokens.1.token_id").tolist() == [66, 73]
    parts = record.pop("parts")
    assert record == {
        "request": "cmpl-1",
        "sample": 0,
        "tag": "a run",
        "program": "look",
        "statement": "look.interv:4",
        "digest": "d" * 64,
        "model": "tiny",
        "prompt_tokens": 3,
        "tokens": 12,
        "ended": "finished",
        "rank": None,
    }
    error = parts[2].pop("error")
    assert 0 < error < 0.01
    assert parts[2] == {
        "site": "pre_attn",
        "layer": 3,
        "after": False,
        "dtype": "F32",
        "shape": [2, 8],
        "form": "int8",
        "rank": None,
        "why": "",
        "rows": "pre_attn.3",
        "tokens": "tokens.1",
    }


def test_the_files_of_each_layout(tmp_path: Path) -> None:
    detail = {}
    for layout in LAYOUTS:
        sink = filesystem(tmp_path / layout, layout=layout)
        detail[layout] = put(sink, mixed())
        put(sink, mixed(sample=1))
        sink.close()
    assert names(tmp_path / "packed") == [
        "a_run-7666f050.cmpl-1.0.look.4.post_block.12.post_block.12.after.pre_attn.3.safetensors",
        "a_run-7666f050.cmpl-1.1.look.4.post_block.12.post_block.12.after.pre_attn.3.safetensors",
        "manifest.jsonl",
    ]
    assert len(names(tmp_path / "per_file")) == 7
    assert names(tmp_path / "per_file")[:3] == [
        "a_run-7666f050.cmpl-1.0.look.4.post_block.12.after.safetensors",
        "a_run-7666f050.cmpl-1.0.look.4.post_block.12.safetensors",
        "a_run-7666f050.cmpl-1.0.look.4.pre_attn.3.safetensors",
    ]
    assert [name[:6] for name in names(tmp_path / "sharded")] == ["manife", "shard-", "shard-"]
    for layout, files in (("packed", 1), ("per_file", 3), ("sharded", 1)):
        assert detail[layout]["files"] == files
        path = Path(str(detail[layout]["path"]))
        assert path.is_dir() if layout == "per_file" else path.is_file()
    path = Path(str(detail["packed"]["path"]))
    assert detail["packed"]["bytes"] == path.stat().st_size


def test_a_record_without_rows_leaves_no_file(tmp_path: Path) -> None:
    sink = filesystem(tmp_path)
    assert sink.put(replace(captured(), parts=())) == {"bytes": 0, "files": 0}
    assert names(tmp_path) == ["manifest.jsonl"]


# Names and collisions


@given(text=st.text(st.characters(codec=None), max_size=300))
def test_a_slug_is_one_name_in_any_folder(text: str) -> None:
    name = slug(text)
    assert 0 < len(name) <= LONGEST_SLUG
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not name.startswith(".")
    assert slug(name) == name
    assert "." not in slug(text, dots=False)


@given(st.text(max_size=150), st.text(max_size=150))
def test_two_texts_keep_two_names(one: str, other: str) -> None:
    assert (slug(one) == slug(other)) == (one == other)
    assert (slug(one, 40, dots=False) == slug(other, 40, dots=False)) == (one == other)


def test_slugs() -> None:
    assert slug("cmpl-42.a_b") == "cmpl-42.a_b"
    assert slug("../../etc/passwd") == "_._.._etc_passwd-3754d6cb"
    assert slug("") == "-e3b0c442"
    assert slug("x" * 121) == "x" * 111 + "-" + slug("x" * 121)[-8:]


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/b", "..", ".", "", "a\0b", "x" * 500])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_written_outside_the_folder(name: str, layout: str, tmp_path: Path) -> None:
    sink = filesystem(tmp_path / "acts", layout=layout)
    put(sink, captured(request=name, tag=name))
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["acts"]
    assert all(path.is_file() for path in (tmp_path / "acts").iterdir())
    assert {record.request for record in read(tmp_path / "acts")} == {name}


def test_the_longest_names_fit(tmp_path: Path) -> None:
    sink = filesystem(tmp_path)
    long = "x" * 300
    parts = [part(layer, site="pre_attn") for layer in range(0, 60, 2)]
    record = captured(
        *parts, request=long, tag=long, program=long, statement=f"a:{long}", sample=2**31 - 1
    )
    for _ in range(2):
        put(sink, record)
    assert [len(name) for name in names(tmp_path)] == [14, 238, 235]
    assert equal(read(tmp_path)[0], record)


def test_suffix_keeps_every_file(tmp_path: Path) -> None:
    sink = filesystem(tmp_path)
    for seed in range(3):
        put(sink, captured(part(seed=seed)))
    assert names(tmp_path) == [
        "cmpl-1.0.look.4.post_block.12--2.safetensors",
        "cmpl-1.0.look.4.post_block.12--3.safetensors",
        "cmpl-1.0.look.4.post_block.12.safetensors",
        "manifest.jsonl",
    ]
    assert len(read(tmp_path)) == 3


def test_error_keeps_the_first(tmp_path: Path) -> None:
    sink = filesystem(tmp_path, on_collision="error")
    put(sink, captured(part(seed=1)))
    with pytest.raises(IntervError) as error:
        put(sink, captured(part(seed=2)))
    assert str(error.value) == (
        f"error[E551]: '{tmp_path}/cmpl-1.0.look.4.post_block.12.safetensors' exists already\n"
        "  = on_collision = suffix keeps both, on_collision = overwrite replaces it"
    )
    assert [equal(one, captured(part(seed=1))) for one in read(tmp_path)] == [True]
    assert names(tmp_path) == ["cmpl-1.0.look.4.post_block.12.safetensors", "manifest.jsonl"]


def test_the_stages_of_a_pipeline_do_not_meet(tmp_path: Path) -> None:
    """Each writes what it has of a request, also where a name may be taken once only."""
    for on_collision in ("error", "overwrite"):
        sink = filesystem(tmp_path / on_collision, on_collision=on_collision)
        for layers in ((0, 1, 2, 5), (10, 11)):
            put(sink, captured(*(part(layer) for layer in layers)))
        assert names(tmp_path / on_collision) == [
            "cmpl-1.0.look.4.post_block.0-2_5.safetensors",
            "cmpl-1.0.look.4.post_block.10_11.safetensors",
            "manifest.jsonl",
        ]


def test_overwrite_keeps_the_last(tmp_path: Path) -> None:
    sink = filesystem(tmp_path, on_collision="overwrite")
    for seed in range(3):
        put(sink, captured(part(seed=seed)))
    assert [equal(one, captured(part(seed=2))) for one in read(tmp_path)] == [True]


@pytest.mark.parametrize("on_collision", ["suffix", "error"])
def test_a_file_system_without_links(
    on_collision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(publishing.os, "link", link)
    sink = filesystem(tmp_path, on_collision=on_collision)
    put(sink, captured(part(seed=1)))
    if on_collision == "error":
        with pytest.raises(IntervError, match="exists already"):
            put(sink, captured(part(seed=2)))
    else:
        put(sink, captured(part(seed=2)))
    kept = read(tmp_path)
    assert equal(kept[-1], captured(part(seed=1)))
    assert len(kept) == (1 if on_collision == "error" else 2)


# Failures


@pytest.mark.parametrize("layout", ["packed", "per_file"])
def test_a_write_that_fails_leaves_nothing(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = filesystem(tmp_path, layout=layout)
    disk_is_full(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        sink.put(captured())
    assert names(tmp_path) == ["manifest.jsonl"]
    monkeypatch.undo()
    put(sink, captured())
    assert len(read(tmp_path)) == (2 if layout == "per_file" else 1)


def test_a_real_disk_that_is_full() -> None:
    """/dev/full takes nothing, as a full disk does."""
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OSError, match="No space left on device"),
    ):
        write(full, encode(captured()))


def test_a_file_is_hidden_until_it_is_whole(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def write_slowly(file: object) -> int:
        seen.append(names(tmp_path))
        return 0

    path = write_part(tmp_path, "a", write_slowly, fsync=True)
    assert len(seen[0]) == 1
    assert path.name == seen[0][0]
    assert (path.name[:3], path.suffix) == (".a.", ".part")


def test_a_folder_is_made_and_files_are_for_all_to_read(tmp_path: Path) -> None:
    sink = filesystem(tmp_path / "acts")
    stored = put(sink, captured())
    mask = os.umask(0)
    os.umask(mask)
    mode = stat.S_IMODE(Path(str(stored["path"])).stat().st_mode)
    assert mode == 0o666 & ~mask


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(IntervError) as error:
        filesystem(tmp_path / "none" / "acts")
    assert str(error.value) == (
        f"error[E550]: '{tmp_path}/none/acts' cannot be written: no such file or directory"
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(IntervError, match="cannot be written: file exists"):
        filesystem(tmp_path / "file")


def test_fsync_of_file_folder_and_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    sink = filesystem(tmp_path / "acts", fsync=True)
    assert synced == ["manifest.jsonl", "acts"]
    synced.clear()
    sink.put(captured())
    assert [name.rpartition(".")[2] for name in synced] == ["part", "acts", "jsonl"]
