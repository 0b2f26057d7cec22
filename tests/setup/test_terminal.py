"""What commands print is text: brackets and colons of others are no markup."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.table import Table
from typer.testing import CliRunner

import interv.commands.demo as demo
from interv.cli import build
from interv.progress import Progress
from interv.terminal import terminal

PACKAGE = Path(demo.__file__).parents[1]
OTHERS = "[bold]pip[/bold] 'interv[cpu]' :smile: [/]"


def captured(monkeypatch: pytest.MonkeyPatch) -> tuple[io.StringIO, object]:
    monkeypatch.setenv("COLUMNS", "200")
    console = terminal()
    console.file = out = io.StringIO()
    return out, console


def test_nothing_is_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    out, console = captured(monkeypatch)
    table = Table(OTHERS, title=OTHERS, caption=OTHERS)
    table.add_row(OTHERS)
    console.print(OTHERS)  # type: ignore[attr-defined]
    console.print(table)  # type: ignore[attr-defined]
    console.rule(OTHERS)  # type: ignore[attr-defined]
    assert out.getvalue().count(OTHERS) == 6


@pytest.mark.parametrize("columns", ["80", "200"])
def test_a_prompt_of_the_demo_keeps_its_brackets(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PROMPTS", ("Say [bold]:smile:[/bold]",))
    out, console = captured(monkeypatch)
    console.width = int(columns)  # type: ignore[attr-defined]
    answers = {"off": ["[red]a"], "joy[0]": ["b"]}
    for part in demo.layout(answers, {"joy[0]": "scale [2]"}, console):  # type: ignore[arg-type]
        console.print(part)  # type: ignore[attr-defined]
    for text in ("Say [bold]:smile:[/bold]", "[red]a", "joy[0]", "scale [2]"):
        assert text in out.getvalue()


def test_a_step_keeps_its_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.step("reading [b]x[/b]")
    assert capsys.readouterr().err == "· reading [b]x[/b]\n"


def test_the_advice_where_there_is_no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interv.commands.doctor.version_of", lambda *names: None)
    result = CliRunner(env={"COLUMNS": "250"}).invoke(build(["doctor"]), ["doctor"])
    assert result.exit_code == 1
    assert "pip install 'interv[cpu]'" in result.stdout


def test_there_is_one_way_to_the_terminal() -> None:
    made = [
        path.relative_to(PACKAGE).as_posix()
        for path in sorted(PACKAGE.rglob("*.py"))
        if re.search(r"\bConsole\(", path.read_text(encoding="utf-8"))
    ]
    assert made == ["terminal.py"]
