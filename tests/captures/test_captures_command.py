"""`interv captures`, as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from tokenizers import decoders
from typer.testing import CliRunner

from interv.captures import load_captures
from interv.captures.bars import shown
from interv.captures.projection import token_texts
from interv.captures.tables import bytes_text, runs_text
from interv.cli import build
from interv.errors import IntervError
from tests.captures.made import WIDTH, folder, records
from tests.sinks.made import captured, filesystem, part
from tests.tiny_tokenizer import NEWLINE, NO, VOCABULARY, YES, tiny_tokenizer


def run(*arguments: object) -> tuple[int, str, str]:
    words = ["captures", *(str(one) for one in arguments)]
    result = CliRunner().invoke(build(words), words, env={"COLUMNS": "120"})
    return result.exit_code, result.stdout, result.stderr


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def save_tokenizer(place: Path) -> Path:
    """Write a tokenizer that gives text back: its `Ġ` is a space again."""
    tokenizer = tiny_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(place / "tokenizer.json"))
    return place


@pytest.fixture
def acts(tmp_path: Path) -> Path:
    return folder(tmp_path / "acts")


@pytest.fixture
def joy(tmp_path: Path) -> Path:
    path = tmp_path / "joy.safetensors"
    save_file({"layer.12": np.eye(1, WIDTH, dtype=np.float32)[0] * 2}, path)
    return path


def test_ls(acts: Path) -> None:
    code, out, err = run("ls", acts)
    assert (code, err) == (0, "")
    table = [" ".join(line.split()) for line in lines(out)]
    assert table[0] == "request sample tag program statement places rows bytes ended"
    assert table[2:] == [
        "a 0 red look look.interv:4 post_block[12, 20], post_block[12] after 18 288 B finished",
        "b 0 blue look look.interv:4 post_block[12, 20] 8 128 B finished",
        "b 1 blue look look.interv:4 post_block[12] 3 48 B finished",
        "29 rows of 3 records in 3 files",
    ]


def test_ls_of_shards_and_files(tmp_path: Path) -> None:
    for layout, files in (("sharded", "1 file"), ("per_file", "6 files")):
        _, out, err = run("ls", folder(tmp_path / layout, layout))
        assert lines(out)[-1] == f"29 rows of {3 if layout == 'sharded' else 6} records in {files}"
        assert err == ""


def test_ls_says_what_is_incomplete_and_what_is_not_true(acts: Path) -> None:
    (acts / ".c.part").write_bytes(b"")
    gone = acts / "red.a.0.look.4.post_block.12_20.post_block.12.after.safetensors"
    gone.unlink()
    code, out, err = run("ls", acts)
    assert code == 1
    assert lines(out)[-1] == "29 rows of 3 records in 3 files"
    assert err == (
        'note: ".c.part" was being written, and is not read\n'
        f"error[E274]: '{gone}' is in the manifest and not there\n"
        "  = put the file back, or delete its line from manifest.jsonl\n"
    )


def test_ls_of_no_folder(tmp_path: Path) -> None:
    code, out, err = run("ls", tmp_path)
    assert (code, out) == (1, "")
    assert err.splitlines()[0] == f"error[E275]: '{tmp_path}' holds no captured rows"


def test_ls_loads_no_torch(acts: Path) -> None:
    code = (
        "import sys\n"
        "from interv.cli import main\n"
        "try: main(['captures', 'ls', sys.argv[1]])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'vllm', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(acts)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_show(tmp_path: Path) -> None:
    one = part(3, 40, 32, site="pre_attn")
    sink = filesystem(tmp_path)
    sink.put(captured(one, part(12, 2, 32, start=4, dtype=torch.float32), rank=4, tag="x"))
    sink.close()
    code, out, err = run("show", tmp_path, "cmpl-1")
    assert (code, err) == (0, "")
    found = [" ".join(line.split()) for line in lines(out)]
    norms = one.rows.double().norm(dim=1)
    error = load_captures(tmp_path).records[0].parts[0].error
    assert found[:7] == [
        "request cmpl-1, sample 0",
        "tag x",
        "statement look.interv:4, program look",
        f"digest {'d' * 64}",
        "model tiny",
        "tokens 3 prompt, 38 generated, finished",
        "place rows positions dtype mean ‖row‖ largest ‖row‖ form error",
    ]
    first, second = found[8].split(), found[9].split()
    assert first[:4] == ["pre_attn[3]", "40", "0..39", "BF16"]
    # Rank 4 of 32 leaves out part of each row.
    assert 0 < float(first[4]) < float(norms.mean())
    assert first[6:] == ["rank", "4", f"{error:.2g}"]
    assert second[:4] == ["post_block[12]", "2", "4..5", "F32"]
    assert " ".join(second[6:]) == "whole rank 4 of 2 x 32 saves no space"


def test_show_of_an_unknown_request(acts: Path) -> None:
    code, _, err = run("show", acts, "c")
    assert code == 1
    assert err == ("error[E276]: no captured row has these labels\n  = request: a, b\n")


def test_load_to_safetensors(acts: Path, tmp_path: Path) -> None:
    target = tmp_path / "rows.safetensors"
    code, out, err = run("load", acts, "--layer", 12, "--request", "b", "-o", target)
    assert (code, out, err) == (0, f"{target}: 7 rows of width 8\n", "")
    wanted = load_captures(acts, layer=12, request="b")
    with safe_open(target, framework="pt") as file:
        assert torch.equal(file.get_tensor("rows"), wanted.rows)
        for name in ("position", "token_id", "layer", "sample", "after"):
            assert torch.equal(file.get_tensor(name), getattr(wanted, name))
        assert file.get_tensor("record").tolist() == [0, 0, 0, 0, 1, 1, 1]
        labels = json.loads(file.metadata()["records"])
        assert [(one["request"], one["sample"]) for one in labels] == [("b", 0), ("b", 1)]


def test_load_to_npz(acts: Path, tmp_path: Path) -> None:
    target = tmp_path / "rows.npz"
    code, out, _ = run("load", acts, "--position", "1:3", "--before", "-o", target)
    assert (code, out) == (0, f"{target}: 8 rows of width 8\n")
    wanted = load_captures(acts, position=slice(1, 3), after=False)
    with np.load(target, allow_pickle=False) as file:
        assert np.array_equal(file["rows"], wanted.rows.float().numpy())
        assert file["request"].tolist() == wanted.request.tolist()
        assert file["position"].tolist() == [1, 2] * 4
        assert json.loads(str(file["records"]))[0]["request"] == "a"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "rows.pt"], "error[E221]: 'rows.pt' cannot be written by its suffix '.pt'"),
        (["-o", "none/rows.npz"], "error[E232]: 'none/rows.npz' cannot be written"),
        (["-o", "a.npz", "--position", "x"], "error[E276]: 'x' is not a position"),
        (["-o", "a.npz", "--position", "-1"], "error[E276]: '-1' is not a position"),
        (["-o", "a.npz", "--layer", "9"], "error[E276]: no captured row has these labels"),
        (["-o", "there.npz"], "error[E231]: 'there.npz' exists already"),
    ],
)
def test_load_that_cannot_be(
    words: list[str],
    message: str,
    acts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.npz").write_bytes(b"mine")
    code, out, err = run("load", acts, *words)
    assert (code, out, err.splitlines()[0]) == (1, "", message)
    assert (tmp_path / "there.npz").read_bytes() == b"mine"
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".part"]


def test_load_replaces_by_force(acts: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.npz"
    target.write_bytes(b"")
    assert run("load", acts, "--position", "7", "--force", "-o", target)[0] == 0
    assert len(np.load(target)["rows"]) == 1


def test_plot_in_the_terminal(acts: Path, joy: Path) -> None:
    words = ("--request", "a", "--layer", "12", "--before", "--vector", joy)
    code, out, err = run("plot", acts, *words)
    assert code == 0
    assert err == "note: tokens are shown by their ids; --model gives their text\n"
    value = records()[0].parts[0].rows[:, 0].double()
    title, *rest = lines(out)
    assert title == "request a: post_block[12] on joy.safetensors"
    assert rest[3] == "── generated ──"
    rows = [line.split() for i, line in enumerate(rest) if i != 3]
    assert [row[:2] for row in rows] == [[str(i), f"#{i * 7 + 3}"] for i in range(6)]
    assert [row[2] for row in rows] == [f"{one:.3f}" for one in value.tolist()]
    top = float(value.abs().max())
    for row, one in zip(rows, value.tolist(), strict=True):
        bar = "━" * round(24 * abs(one) / top)
        assert row[3] == (f"{bar}│" if one < 0 else f"│{bar}")


def test_plot_draws_a_picture(acts: Path, joy: Path, tmp_path: Path) -> None:
    from PIL import Image

    target = tmp_path / "joy.png"
    words = ("--request", "a", "--layer", "12", "--after", "--vector", joy, "-o", target)
    code, out, _ = run("plot", acts, *words)
    assert code == 0
    assert lines(out)[-1] == f"{target}: 6 tokens"
    with Image.open(target) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
        # The colour of a bar is that of its sign.
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or ()}
    signs = (records()[0].parts[1].rows[:, 0] >= 0).tolist()
    assert ((0x1F, 0x77, 0xB4) in colours, (0xD6, 0x27, 0x28) in colours) == (
        any(signs),
        not all(signs),
    )


def test_a_picture_of_signs_that_no_font_has(tmp_path: Path, joy: Path) -> None:
    place = folder(tmp_path / "acts")
    captures = load_captures(place, request="a", after=False, layer=12)
    from interv.captures.plot import save_plot
    from interv.captures.projection import project
    from interv.vectors import read_vectors

    projection = project(captures, read_vectors(joy))
    odd = replace(projection, text=("漢", "$x^2", "\x1b[31m", "\U000f0000", "\n", "🙂"))
    save_plot(odd, tmp_path / "odd.png")
    assert (tmp_path / "odd.png").stat().st_size > 1000


def test_rows_that_are_not_finite_have_no_bar(tmp_path: Path, joy: Path) -> None:
    one = part(12, 4)
    one.rows[:, 0] = torch.tensor([1.0, float("nan"), float("inf"), -2.0])
    sink = filesystem(tmp_path / "acts")
    sink.put(captured(one))
    sink.close()
    words = ("plot", tmp_path / "acts", "--vector", joy, "-o", tmp_path / "a.png")
    code, out, _ = run(*words)
    assert code == 0
    rows = [line.split() for line in lines(out)[1:-1] if "generated" not in line]
    assert [row[2] for row in rows] == ["1.000", "nan", "inf", "-2.000"]
    assert [row[3].count("━") for row in rows] == [12, 0, 0, 24]


def test_plot_over_the_text(tmp_path: Path, joy: Path) -> None:
    one = part(12, 4)
    one.token_id.copy_(torch.tensor([YES, NO, NEWLINE, 3]))
    sink = filesystem(tmp_path / "acts")
    sink.put(captured(one))
    sink.close()
    model = save_tokenizer(tmp_path)
    code, out, err = run("plot", tmp_path / "acts", "--vector", joy, "--model", model)
    assert (code, err) == (0, "")
    words = [line[7:28].rstrip() for line in lines(out)[1:] if "generated" not in line]
    assert words == [" yes", "no", "\\n", ""]


def test_a_tensor_of_a_vector_file(acts: Path, tmp_path: Path) -> None:
    path = tmp_path / "probes.safetensors"
    save_file({"a": np.ones(8, np.float32), "b": -np.ones(8, np.float32)}, path)
    words = ("--request", "b", "--sample", "1", "--vector")
    sums = [lines(run("plot", acts, *words, f"{path}:{key}")[1])[1].split()[2] for key in "ab"]
    assert float(sums[0]) == -float(sums[1]) != 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "rows of several places or requests are not one line over a text"),
        (["--request", "b", "--layer", "20"], "has no direction for layer 20"),
    ],
)
def test_plot_that_cannot_be(words: list[str], message: str, acts: Path, joy: Path) -> None:
    code, out, err = run("plot", acts, "--vector", joy, *words)
    assert (code, out) == (1, "")
    assert message in err
    assert err.startswith("error[E278]: ")


def test_a_direction_of_another_width(acts: Path, tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    save_file({"v": np.ones(5, np.float32)}, path)
    _, _, err = run("plot", acts, "--request", "b", "--layer", 20, "--vector", path)
    assert err == f"error[E278]: '{path}' is 5 wide, the captured rows are 8\n"


def test_a_picture_that_cannot_be(acts: Path, joy: Path, tmp_path: Path) -> None:
    words = ("--request", "b", "--sample", "1", "--vector", joy)
    assert "E221" in run("plot", acts, *words, "-o", tmp_path / "a.pdf")[2]
    assert "E232" in run("plot", acts, *words, "-o", tmp_path / "none" / "a.png")[2]


def test_a_tokenizer_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(IntervError, match="is not a tokenizer") as error:
        token_texts(tmp_path, [1], [0])
    assert error.value.code == "E533"


def test_token_texts_join_to_the_text(tmp_path: Path) -> None:
    model = save_tokenizer(tmp_path)
    ids = [NO, YES, NO, len(VOCABULARY) + 5]
    assert token_texts(model, ids, [0, 1, 2, 3]) == ("no", " yes", "no", f"#{ids[3]}")


def test_nothing_in_a_label_reaches_the_terminal(tmp_path: Path) -> None:
    sink = filesystem(tmp_path)
    sink.put(captured(request="\x1b[2J[red]x\n"))
    sink.close()
    save_file({"v": np.ones(WIDTH, np.float32)}, tmp_path / "v.safetensors")
    plot = ("plot", tmp_path, "--layer", "12", "--vector", tmp_path / "v.safetensors")
    for words in (("ls", tmp_path), ("show", tmp_path, "\x1b[2J[red]x\n"), plot):
        code, out, _ = run(*words)
        assert code == 0
        assert "\x1b" not in out
        assert "\\x1b[2J[red]x\\n" in out
    _, _, err = run("show", tmp_path, "y")
    assert "request: \\x1b[2J[red]x\\n" in err


def test_small_texts() -> None:
    assert shown("a\tb\x1b", ascii_only=False) == "a\\tb\\x1b"
    assert shown("é" * 30, ascii_only=True) == "\\xe9" * 4 + "\\..."
    assert shown("x" * 21, ascii_only=False) == "x" * 19 + "…"
    assert runs_text([0, 1, 2, 7, 9, 10]) == "0..2, 7, 9..10"
    assert runs_text(range(0, 20, 2)) == "0, 2, 4, 6 and 6 more runs"
    assert [bytes_text(n) for n in (512, 1536, 3 << 20, 5 << 30)] == [
        "512 B",
        "1.5 KiB",
        "3.0 MiB",
        "5.0 GiB",
    ]


def test_the_help_teaches() -> None:
    _, out, _ = run("--help")
    assert 'sink acts = filesystem("acts/")' in out
    for command in ("ls", "show", "load", "plot"):
        code, out, _ = run(command, "--help")
        assert code == 0
        assert "Example" in out
