"""`interv compile --analyze` on a real engine: its rows are exact, and it ends when told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

pytestmark = pytest.mark.engine

WIDTH, BYTES = 576, 2  # of SmolLM2-135M-Instruct, whose weights are bf16
# The graph as it is traced, for a quick start: what is tested here is not how fast it runs.
QUICK = {**os.environ, "VLLM_CPU_CI_ENV": "1"}
PROMPTS = ("one two three", "a b c d e f g h")
NEW_TOKENS = 3
TEXT = """interv 1
vector v = "v.safetensors"
program every { steer v at post_block[3..5] scale 0.01 }
program later { steer v at post_block[4] scale 0.01 when generated }
program idle { cap v at post_block[5] in [-1e9, 1e9] }
"""


@pytest.fixture
def document(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    save_file({"v": rng.normal(size=WIDTH).astype(np.float32)}, tmp_path / "v.safetensors")
    path = tmp_path / "t.interv"
    path.write_text(TEXT)
    return path


def command(document: Path, model: Path, *more: str) -> list[str]:
    asked = [part for prompt in PROMPTS for part in ("--prompt", prompt)]
    start = [sys.executable, "-c", "from interv.cli import main; main()"]
    return [*start, "compile", str(document), "--model", str(model), "--analyze", *asked, *more]


def test_measured_rows_are_the_rows_of_the_selectors(document: Path, model_path: Path) -> None:
    words = command(document, model_path, "--tokens", str(NEW_TOKENS), "--format", "json")
    done = subprocess.run(words, capture_output=True, text=True, env=QUICK)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("·")] == [
        f"· starting vLLM with {model_path}",
        "· first round: rows are counted",
        *(f"· round {n} of 5: steps are timed" for n in range(1, 6)),
    ]
    plan = json.loads(done.stdout)["plan"]
    measured, later = plan["measured"], len(PROMPTS) * (NEW_TOKENS - 1)
    fed = measured["prompt_tokens"] + later
    assert (measured["requests"], measured["new_tokens"], measured["rounds"]) == (2, NEW_TOKENS, 5)
    assert (measured["dtype"], measured["fed"]) == ("bfloat16", fed)
    assert measured["prompt_tokens"] >= 11
    rows = [
        (site["site"], one["program"], one["rows"])
        for site in plan["sites"]
        for one in site["measured"]
    ]
    assert rows == [
        ("post_block[3]", "every", fed),
        ("post_block[4]", "every", fed),
        ("post_block[4]", "later", later),
        ("post_block[5]", "every", fed),
        ("post_block[5]", "idle", 0),
    ]
    steps = {one["asked"]: one for one in measured["steps"]}
    assert list(steps) == ["off", "every", "later", "idle"]
    assert [one["rows"] for one in steps.values()] == [0, 3 * fed, later, 0]
    assert steps["every"]["stream_bytes"] == 3 * fed * 3 * WIDTH * BYTES
    assert steps["off"]["ratio"] == 1
    for one in steps.values():
        assert 0 < one["low_us"] <= one["median_us"] <= one["high_us"]


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_leaves_no_engine(document: Path, model_path: Path) -> None:
    # A session of its own, as a terminal's job: the signal goes to the command alone.
    process = subprocess.Popen(
        command(document, model_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=QUICK,
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("· starting vLLM")
    child = _child(process.pid)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert error.rstrip().endswith("interrupted")
    deadline = time.monotonic() + 60
    while _runs(child):
        assert time.monotonic() < deadline, "the engine outlives the command"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Say whether a process is there and is more than a name that nobody has collected yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(") ")[2][0] not in "ZX"


def _child(parent: int) -> int:
    """Return the engine's process once it has begun."""
    deadline = time.monotonic() + 60
    children = Path(f"/proc/{parent}/task/{parent}/children")
    while not (found := children.read_text().split()):
        assert time.monotonic() < deadline, "no engine was started"
        time.sleep(0.05)
    os.kill(int(found[0]), 0)
    return int(found[0])
