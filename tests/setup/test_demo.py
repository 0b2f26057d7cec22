"""How the demo lays answers out, and how its engines begin and end."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from interv.commands.demo import (
    CHILD_ENV,
    PROGRAMS,
    PROMPTS,
    example_files,
    layout,
    program_text,
    run_engine,
)
from interv.compile import compile_documents
from interv.errors import IntervError
from interv.load import load_document
from interv.measuring.engine_process import run
from interv.measuring.generate import Job, without_defaults
from interv.model import model_facts

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = str(EXAMPLES / "models/smollm2-135m")
ANSWERS = {name: [f"{name} {i}\n\nend" for i in range(4)] for name in ("unedited", "joy", "gloom")}


def printed(width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    texts = {name: program_text(EXAMPLES / f"{name}.interv") for name in ("joy", "gloom")}
    for part in layout(ANSWERS, texts, console):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_wide_terminals_show_programs_side_by_side() -> None:
    lines = printed(160).splitlines()
    assert max(map(len, lines)) <= 160
    row = next(line for line in lines if "unedited 2" in line)
    assert PROMPTS[2] in row
    assert row.index("unedited 2 end") < row.index("joy 2 end") < row.index("gloom 2 end")


@pytest.mark.parametrize("width", [40, 80])
def test_narrow_terminals_show_prompts_one_after_the_other(width: int) -> None:
    shown = printed(width)
    assert max(map(len, shown.splitlines())) <= width
    places = [shown.index(f"{name} {i}") for i in range(4) for name in ANSWERS]
    assert places == sorted(places)


def test_programs_are_shown_as_they_are_written() -> None:
    assert program_text(EXAMPLES / "bureaucrat.interv") == (
        "steer formal at post_block[12..20] scale 0.08\n"
        "cap joy at post_block[12..20] in [, 5]\n"
        "ablate sea at post_block[12..20]\n"
        "conflict sequential"
    )


def test_the_examples_are_found_and_missed_by_name(tmp_path: Path) -> None:
    assert example_files(None) == {name: EXAMPLES / f"{name}.interv" for name in PROGRAMS}
    with pytest.raises(IntervError) as caught:
        example_files(tmp_path)
    assert str(caught.value) == (
        f"error[E544]: there is no 'joy.interv' in '{tmp_path}'\n"
        "  = wanted: joy.interv, gloom.interv, landlocked.interv, seaside.interv, sulky.interv,"
        " bureaucrat.interv\n"
        "  = name the examples of interv's repository with --examples"
    )


def test_documents_of_one_engine_lose_their_defaults_and_nothing_else(tmp_path: Path) -> None:
    files = [EXAMPLES / f"{name}.interv" for name in PROGRAMS]
    written = without_defaults([str(file) for file in files], tmp_path)
    compiled = compile_documents([load_document(one) for one in written], model_facts(MODEL))
    assert compiled.bundle.programs == PROGRAMS
    assert compiled.bundle.default is None
    for name, file in zip(PROGRAMS, files, strict=True):
        alone = compile_documents([load_document(file)], model_facts(MODEL)).bundle
        assert compiled.bundle.contents[name] == alone.contents[name]


def test_an_engine_that_cannot_start_shows_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(IntervError) as caught:
        run_engine(
            Job(str(tmp_path / "nothing"), (str(tmp_path / "no.interv"),), ("Hi",), ("off",), 1)
        )
    assert caught.value.code == "E545"
    assert "no.interv" in "\n".join(caught.value.notes)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_stops_the_engine_and_its_children(tmp_path: Path) -> None:
    """The engine's own child goes too, as a worker of vLLM would."""
    pids = tmp_path / "pids"
    child = f"import os, time; open({str(pids)!r}, 'a').write(f'{{os.getpid()}} '); "
    parent = (
        f"import subprocess, sys; {child}"
        f"subprocess.Popen([sys.executable, '-c', {child + 'time.sleep(600)'!r}]); time.sleep(600)"
    )
    script = (
        "import signal, threading, os, pathlib, time\n"
        "from interv.measuring.engine_process import run\n"
        f"pids = pathlib.Path({str(pids)!r})\n"
        "def stop():\n"
        "    while not pids.is_file() or len(pids.read_text().split()) < 2: time.sleep(0.05)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=stop).start()\n"
        "try:\n"
        f"    run([{sys.executable!r}, '-c', {parent!r}], pids.with_name('log'), os.environ)\n"
        "except KeyboardInterrupt:\n"
        "    raise SystemExit(7)\n"
    )
    assert run([sys.executable, "-c", script], tmp_path / "outer", os.environ) == 7
    for pid in map(int, pids.read_text().split()):
        _wait_gone(pid)


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and "Z" not in _state(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def test_children_get_their_settings_and_this_process_does_not(tmp_path: Path) -> None:
    script = "import os; print(os.environ['VLLM_CPU_CI_ENV'], os.environ['VLLM_LOGGING_LEVEL'])"
    before = dict(os.environ)
    env = {**os.environ, **CHILD_ENV}
    assert run([sys.executable, "-c", script], tmp_path / "log", env) == 0
    assert (tmp_path / "log").read_text() == "1 ERROR\n"
    assert dict(os.environ) == before
