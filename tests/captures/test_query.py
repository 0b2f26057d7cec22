"""`load_captures`: the rows that were asked for, each with its own labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

import interv
from interv.captures import load_captures
from interv.errors import IntervError
from interv.sinks.reading import CaptureFile
from tests.captures.made import all_rows, folder, records
from tests.sinks.made import captured, filesystem, part

LAYOUTS = ("packed", "per_file", "sharded")


@pytest.fixture(scope="module")
def acts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("captures")
    return {layout: folder(place / layout, layout) for layout in LAYOUTS}


def expected(**wanted: Any) -> list[tuple[Any, ...]]:
    """Return the labels and the first value of each wanted row, by brute force."""
    found = []
    for record in records():
        for one in record.parts:
            for i, position in enumerate(one.position.tolist()):
                labels = {
                    "request": record.request,
                    "sample": record.sample,
                    "tag": record.tag,
                    "site": one.site,
                    "layer": one.layer,
                    "after": one.after,
                    "position": position,
                    "token_id": position * 7 + 3,
                }
                if all(_wanted(labels[name], value) for name, value in wanted.items()):
                    found.append((*labels.values(), one.rows[i, 0].item()))
    return sorted(found)


def _wanted(value: Any, asked: Any) -> bool:
    if asked is None:
        return True
    if isinstance(asked, slice):
        stop = 2**62 if asked.stop is None else asked.stop
        return bool((asked.start or 0) <= value < stop)
    return bool(value in asked if isinstance(asked, list | set | tuple) else value == asked)


def found(captures: interv.Captures) -> list[tuple[Any, ...]]:
    names = ("request", "sample", "tag", "site", "layer", "after", "position", "token_id")
    columns = [getattr(captures, name).tolist() for name in names]
    return sorted(zip(*columns, captures.rows[:, 0].tolist(), strict=True))


def test_all_rows_in_the_order_of_the_files(acts: dict[str, Path]) -> None:
    captures = load_captures(acts["packed"])
    assert torch.equal(captures.rows, all_rows())
    assert len(captures) == 18 + 8 + 3
    assert repr(captures) == f"<29 rows of 2 requests in {acts['packed']}>"
    assert captures.rows.dtype == torch.bfloat16
    assert captures.incomplete == ()
    assert [record.request for record in captures.records] == ["a", "b", "b"]
    assert captures.program.tolist() == ["look"] * 29


@settings(deadline=None, max_examples=80)
@given(
    layout=st.sampled_from(LAYOUTS),
    request=st.sampled_from([None, "a", "b", ["a", "b"], ["b", "none"]]),
    tag=st.sampled_from([None, "red", {"blue"}]),
    site=st.sampled_from([None, "post_block", ("post_block", "pre_attn")]),
    layer=st.sampled_from([None, 12, 20, [12, 20], (20,)]),
    sample=st.sampled_from([None, 0, 1]),
    after=st.sampled_from([None, True, False]),
    position=st.sampled_from([None, 0, 3, 8, slice(2, 5), slice(4, None), slice(None, 2)]),
)
def test_a_query_gives_what_brute_force_gives(
    acts: dict[str, Path], layout: str, **wanted: Any
) -> None:
    rows = expected(**wanted)
    if rows:
        assert found(load_captures(acts[layout], **wanted)) == rows
    else:
        with pytest.raises(IntervError) as error:
            load_captures(acts[layout], **wanted)
        assert error.value.code == "E276"


def test_columns_choose_rows(acts: dict[str, Path]) -> None:
    captures = interv.load_captures(acts["packed"], layer=12)
    chosen = captures.rows[captures.request == "b"]
    assert torch.equal(chosen, load_captures(acts["packed"], layer=12, request="b").rows)
    late = captures.rows[captures.position >= 5]
    assert torch.equal(late, load_captures(acts["packed"], layer=12, position=slice(5, None)).rows)


def test_only_the_rows_that_are_asked_for_are_read(
    acts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, int, int | None]] = []
    real = CaptureFile.rows

    def rows(self: CaptureFile, part: Any, start: int = 0, stop: int | None = None) -> Any:
        read.append((part.name, start, stop))
        return real(self, part, start, stop)

    monkeypatch.setattr(CaptureFile, "rows", rows)
    opened: list[str] = []
    init = CaptureFile.__init__

    def opening(self: CaptureFile, path: Path, **more: Any) -> None:
        opened.append(path.name)
        init(self, path, **more)

    monkeypatch.setattr(CaptureFile, "__init__", opening)
    captures = load_captures(acts["packed"], request="a", layer=20, position=slice(1, 3))
    assert (read, opened) == (
        [],
        ["red.a.0.look.4.post_block.12_20.post_block.12.after.safetensors"],
    )
    assert captures.position.tolist() == [1, 2]
    assert read == []
    assert captures.rows.shape == (2, 8)
    assert read == [("post_block[20]", 1, 3)]


def test_compressed_rows_read_as_rows(tmp_path: Path) -> None:
    low = torch.outer(torch.arange(1.0, 41), torch.ones(16)).to(torch.bfloat16)
    one = part(1, 40, 16)
    one.rows.copy_(low)
    for name, options, rank in (("svd", {}, 1), ("int8", {"quantize": "int8"}, None)):
        sink = filesystem(tmp_path / name, **options)
        sink.put(captured(one, rank=rank))
        sink.close()
        captures = load_captures(tmp_path / name, position=slice(10, 20))
        assert captures.rows.dtype == torch.bfloat16
        assert torch.allclose(captures.rows.float(), low[10:20].float(), rtol=2**-7)
        assert captures.records[0].parts[0].error < 0.01


def test_nothing_found_says_what_there_is(acts: dict[str, Path]) -> None:
    with pytest.raises(IntervError) as error:
        load_captures(acts["packed"], tag="re", layer=13)
    assert str(error.value) == (
        "error[E276]: no captured row has these labels\n"
        "  = tag: blue, red\n"
        "  = layer: 12, 20\n"
        "  = did you mean 'red'?"
    )


@pytest.mark.parametrize("position", [-1, slice(-2, None), slice(0, 5, 2), slice(3, -1)])
def test_positions_that_mean_nothing(acts: dict[str, Path], position: Any) -> None:
    with pytest.raises(IntervError) as error:
        load_captures(acts["packed"], position=position)
    assert str(error.value) == (
        "error[E276]: positions are a number from 0 on, or a slice of them without a step"
    )


def test_rows_of_several_kinds_are_not_one_tensor(tmp_path: Path) -> None:
    sink = filesystem(tmp_path)
    sink.put(captured(part(0, 2, 8)))
    sink.put(captured(part(0, 2, 16, dtype=torch.float32), request="r2"))
    sink.close()
    captures = load_captures(tmp_path)
    assert captures.position.tolist() == [0, 1, 0, 1]
    with pytest.raises(IntervError) as error:
        _ = captures.rows
    assert str(error.value) == (
        "error[E278]: these rows are of several kinds and are not one tensor\n"
        "  = found: BF16 of width 8, F32 of width 16\n"
        "  = choose those of one model: program=…, request=…"
    )
    assert load_captures(tmp_path, request="r2").rows.dtype == torch.float32


def test_more_rows_than_are_allowed(tmp_path: Path) -> None:
    sink = filesystem(tmp_path)
    sink.put(captured(part(0, 3000, 256)))
    sink.close()
    with pytest.raises(IntervError) as error:
        _ = load_captures(tmp_path, most_mib=1).rows
    assert str(error.value) == (
        "error[E277]: these rows take 1 MiB, 1 are allowed\n"
        "  = choose fewer, or allow more: most_mib=…"
    )
    assert load_captures(tmp_path, most_mib=2).rows.shape == (3000, 256)


def test_a_file_that_is_replaced_in_between(tmp_path: Path) -> None:
    place = folder(tmp_path / "acts")
    captures = load_captures(place, request="a")
    sink = filesystem(place, on_collision="overwrite")
    sink.put(replace(records()[0], ended="aborted"))
    with pytest.raises(IntervError, match="not a file of captured rows") as error:
        _ = captures.rows
    assert error.value.notes == ("it was replaced after its labels were read",)


def test_a_folder_without_a_manifest_is_read_by_its_files(tmp_path: Path) -> None:
    place = folder(tmp_path)
    (place / "manifest.jsonl").unlink()
    captures = load_captures(place)
    assert len(captures) == 29
    assert captures.incomplete == (
        "there is no manifest.jsonl: whether files are missing cannot be told",
    )


def test_what_is_incomplete_is_said(tmp_path: Path) -> None:
    place = folder(tmp_path, close=False)
    (place / ".x.0.look.4.aaaa.part").write_bytes(b"half")
    (place / "notes.safetensors").write_bytes(b"mine")
    (place / "notes.txt").write_bytes(b"mine")
    session, *rest = load_captures(place).incomplete[1:]
    assert load_captures(place).incomplete[0] == (
        '".x.0.look.4.aaaa.part" was being written, and is not read'
    )
    assert session.endswith("has not closed: it still runs, or was ended early")
    assert rest == ['"notes.safetensors" is not of a capture']
    assert len(load_captures(place)) == 29
