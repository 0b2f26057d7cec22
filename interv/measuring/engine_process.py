"""Run an engine in a process of its own: nothing that it prints or holds outlives the call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from interv.errors import IntervError

STOP_WAIT_S = 10.0
_LOOK_S = 0.2

# For an engine that answers calls one by one and says only what went wrong.
QUIET_ENV = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


def run_module(
    module: str, job: str, env: Mapping[str, str], tell: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Run `python -m MODULE JOB RESULT STEPS` under this environment and return its result.

    The job goes in and the result comes out as JSON; `tell` gets each line that the module adds
    to STEPS. Raises E545, with the last lines of the output where it ends without a result, and
    with the document's own error where the result is one.
    """
    with tempfile.TemporaryDirectory(prefix="interv-engine-") as place:
        names = ("job.json", "result.json", "steps", "log")
        task, result, steps, log = (Path(place) / name for name in names)
        task.write_text(job, encoding="utf-8")
        steps.touch()
        command = [sys.executable, "-m", module, str(task), str(result), str(steps)]
        with steps.open(encoding="utf-8") as told:
            code = run(command, log, env, lambda: _pass_on(told, tell))
        if not result.is_file():
            raise _no_answer(code, log.read_text(encoding="utf-8", errors="replace"))
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if "error" in found:
        raise IntervError("E545", "the engine refused the document", notes=found["error"])
    return found


def _pass_on(told: Any, tell: Callable[[str], None] | None) -> None:
    for line in told:
        if tell is not None:
            tell(line.rstrip())


def run(
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str],
    look: Callable[[], None] | None = None,
) -> int:
    """Run a command and return its exit code; `look` is called now and then until it ends.

    Where this process is interrupted, the command ends first, and all that it has started.
    """
    with log.open("wb") as output:
        # A session of its own: the whole group can be stopped, vLLM's workers included.
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=dict(env),
            start_new_session=True,
        )
        try:
            return _wait(process, look)
        finally:
            if process.poll() is None:
                _stop(process)


def _wait(process: subprocess.Popen[bytes], look: Callable[[], None] | None) -> int:
    if look is None:
        return process.wait()
    while True:
        try:
            return process.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            look()


def _stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_WAIT_S
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _no_answer(code: int, log: str) -> IntervError:
    lines = [line for line in log.splitlines() if line.strip()]
    return IntervError(
        "E545",
        f"the engine ended with code {code} and no answer",
        notes=lines[-5:],
        helps=("`interv doctor` shows what is missing here",),
    )
