"""`interv check` and `interv fmt`: output, exit codes, and what they do not import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner, Result

from interv.cli import COMMANDS, build

GOOD = 'interv 1\nvector v="v.safetensors"\nprogram p { steer v at post_block[1] }\n'
PRETTY = 'interv 1\nvector v = "v.safetensors"\nprogram p {\n  steer v at post_block[1]\n}\n'


@pytest.fixture
def good(tmp_path: Path) -> Path:
    save_file({"layer.1": np.ones(8, np.float32)}, tmp_path / "v.safetensors")
    path = tmp_path / "good.interv"
    path.write_text(GOOD)
    return path


def run(*arguments: object, given: str | None = None) -> Result:
    words = [str(one) for one in arguments]
    return CliRunner().invoke(build(words), words, input=given)


def test_check_of_a_good_file(good: Path) -> None:
    result = run("check", good)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{good}: fine (1 program, 1 vector)\n"


def test_check_reports_every_file(good: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.interv"
    bad.write_text("interv 1\nprogram p { steer v at post_atn[1] }\ndefault q\n")
    result = run("check", bad, good, tmp_path / "none.interv")
    assert result.exit_code == 1
    assert result.stdout == f"{good}: fine (1 program, 1 vector)\n"
    assert result.stderr == (
        f"""\
error[E202]: no vector is called 'v'
 --> {bad}:2:19
  |
2 | program p {{ steer v at post_atn[1] }}
  |                   ^ unknown vector
  |
  = no vector is declared

error[E201]: 'post_atn' is not a site
 --> {bad}:2:24
  |
2 | program p {{ steer v at post_atn[1] }}
  |                        ^^^^^^^^ not a site
  |
  = sites here: pre_attn, post_attn, post_block
  = did you mean 'post_attn'?

error[E205]: no program is called 'q'
 --> {bad}:3:9
  |
3 | default q
  |         ^ unknown program
  |
  = programs here: p

error[E200]: '{tmp_path}/none.interv' cannot be read: no such file or directory

4 errors in 2 files
"""
    )


def test_check_looks_at_vector_files(tmp_path: Path) -> None:
    path = tmp_path / "a.interv"
    path.write_text(
        'interv 1\nvector v = "gone.gguf"\nvector w = "w.pt"\n'
        "program p { steer w at post_block[1] gate v capture at post_block[2] to s }\n"
        "sink s = memory()\n"
    )
    (tmp_path / "w.pt").write_bytes(b"no archive")
    result = run("check", path)
    assert result.exit_code == 1
    codes = [line for line in result.stderr.splitlines() if line.startswith("error[")]
    assert codes[0].startswith("error[E220]: vector 'v': ")
    assert codes[1:] == ["error[E222]: vector 'w': 'w.pt' is not a valid pt file"]
    assert result.stderr.endswith("2 errors in 1 file\n")


def test_check_looks_at_adapters_and_at_archives_of_torch(tmp_path: Path) -> None:
    import torch

    torch.save({1: torch.ones(576)}, tmp_path / "v.pt")
    torch.save({"read": torch.ones(2, 576), "write": torch.ones(2, 576)}, tmp_path / "f.pt")
    path = tmp_path / "a.interv"
    text = (
        'interv 1\nadapter f = "f.pt"\nvector v = "v.pt"\n'
        "program p { apply f at post_block[12] steer v at post_block[1] }\n"
    )
    path.write_text(text)
    result = run("check", path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{path}: fine (1 program, 1 vector, 1 adapter)\n"
    path.write_text(text.replace("f.pt", "nowhere/adapter").replace("v.pt", "soup.pt"))
    (tmp_path / "soup.pt").write_bytes(b"soup")
    result = run("check", path)
    assert result.exit_code == 1
    assert [line for line in result.stderr.splitlines() if line.startswith("error[")] == [
        "error[E220]: adapter 'f': 'nowhere/adapter' does not exist",
        "error[E222]: vector 'v': 'soup.pt' is not a valid pt file",
    ]


def test_check_says_what_only_torch_can_open(tmp_path: Path) -> None:
    import torch

    # A tensor that requires a gradient and has attributes is rebuilt by a function of torch.
    parameter = torch.nn.Parameter(torch.ones(576))
    parameter.note = "kept"  # type: ignore[attr-defined]
    torch.save({1: parameter}, tmp_path / "v.pt")
    path = tmp_path / "a.interv"
    path.write_text('interv 1\nvector v = "v.pt"\nprogram p { steer v at post_block[1] }\n')
    result = run("check", path)
    assert result.exit_code == 3
    assert result.stderr == (
        f"{path}: vector 'v': 'v.pt' not opened: its pickle asks to call"
        " 'torch._utils._rebuild_parameter_with_state'; nothing in a pickle is ever called;"
        " torch may read it, and interv compile asks it\n"
    )
    assert result.stdout == f"{path}: fine but for 1 file not opened (1 program, 1 vector)\n"


def test_thousands_of_errors_are_told_a_hundred_of(tmp_path: Path) -> None:
    path = tmp_path / "a.interv"
    lines = "".join(f"  steer w{i} at post_block[1]\n" for i in range(3000))
    path.write_text(f"interv 1\nprogram p {{\n{lines}}}\n")
    result = run("check", path)
    assert result.exit_code == 1
    assert result.stderr.count("error[E202]") == 100
    assert result.stderr.endswith("\nand 2900 more errors\n\n3000 errors in 1 file\n")
    result = run("compile", path)
    assert result.exit_code == 1
    assert result.stderr.endswith("\nand 2900 more errors\n")
    assert result.stderr.count("error[E202]") == 100


def test_check_reads_standard_input() -> None:
    result = run("check", "-", given="interv 1\n")
    assert (result.exit_code, result.stdout) == (0, "<stdin>: fine (0 programs, 0 vectors)\n")


def test_fmt_writes_once(good: Path) -> None:
    assert run("fmt", good).stderr == f"{good}: formatted\n"
    assert good.read_text() == PRETTY
    assert run("fmt", good).stderr == ""


def test_fmt_check_and_diff_write_nothing(good: Path) -> None:
    result = run("fmt", "--check", good)
    assert (result.exit_code, result.stderr) == (1, f"{good}: would be formatted\n")
    result = run("fmt", "--diff", good)
    assert result.exit_code == 1
    assert '-vector v="v.safetensors"\n' in result.stdout
    assert '+vector v = "v.safetensors"\n' in result.stdout
    assert good.read_text() == GOOD


def test_fmt_of_standard_input_and_of_broken_text(tmp_path: Path) -> None:
    result = run("fmt", "-", given=GOOD)
    assert (result.exit_code, result.stdout) == (0, PRETTY)
    broken = tmp_path / "a.interv"
    broken.write_text("interv 1\nprogram {\n")
    result = run("fmt", broken)
    assert result.exit_code == 1
    assert result.stderr.startswith("error[E101]: expected a name, found '{'")
    assert broken.read_text() == "interv 1\nprogram {\n"


def test_wrong_use_is_exit_code_2() -> None:
    for words in (["check"], ["chekc", "a"], ["fmt", "--nothing", "a"]):
        result = run(*words)
        assert result.exit_code == 2
        assert "Traceback" not in result.output


def test_help_names_every_command_and_shows_an_example() -> None:
    text = run("--help").stdout
    assert all(f"  {name}" in text for name in COMMANDS)
    assert '    vector calm = "vectors/calm.gguf"\n' in text
    for name in ("check", "fmt"):
        assert "Example: interv " in run(name, "--help").stdout


def interpreted(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


@pytest.mark.parametrize("command", ["check", "fmt", "--help"])
def test_light_commands_load_no_torch(good: Path, command: str) -> None:
    arguments = [command] if command == "--help" else [command, str(good)]
    code = (
        "import sys\nfrom interv.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(sorted(m for m in ('torch', 'vllm', 'transformers') if m in sys.modules))\n"
    )
    assert interpreted(code).splitlines()[-1] == "[]"


def test_the_package_loads_no_torch() -> None:
    code = "import sys, interv; interv.load_text; print('torch' in sys.modules)"
    assert interpreted(code) == "False\n"


def test_the_installed_command(good: Path) -> None:
    command = Path(sys.executable).with_name("interv")
    done = subprocess.run([command, "check", good], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{good}: fine (1 program, 1 vector)\n"
    version = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60)
    assert version.stdout == "interv 0.1.0\n"
