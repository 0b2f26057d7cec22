"""A process that has imported vLLM, from which the processes of engines are forked.

The imports take longer than a small engine's start. Forking is safe because the process has one
thread: OpenMP is told so, which also keeps engines of tests that run side by side from waiting for
each other's cores.
"""

from __future__ import annotations

import atexit
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, NoReturn

from tests.engine.child import early, serve

ROOT = Path(__file__).parents[2]
# What every engine loads.
_MODULES = (
    "transformers",
    "vllm.entrypoints.llm",
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.worker.cpu_model_runner",
    "vllm.model_executor.models.llama",
    "interv",
)


class Forked:
    """A process that another one has forked; what `subprocess.Popen` has, where it is needed."""

    def __init__(self, pid: int) -> None:
        self._fd = os.pidfd_open(pid)

    def wait(self, timeout: float) -> bool:
        """Return whether it ended within so many seconds."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def kill(self) -> None:
        """End it at once."""
        if not self.wait(0):
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    def close(self) -> None:
        """Forget it."""
        os.close(self._fd)


class Nursery:
    """The process that forks; one for each set of variables that matter to the imports."""

    _known: ClassVar[dict[bool, Nursery]] = {}

    @classmethod
    def of(cls, interpreted: bool) -> Nursery:
        """Return the nursery of engines with or without interpreted kernels."""
        if interpreted not in cls._known:
            cls._known[interpreted] = cls(interpreted)
        return cls._known[interpreted]

    def __init__(self, interpreted: bool) -> None:
        self._channel, theirs = socket.socketpair()
        variables = {"OMP_NUM_THREADS": "1", "VLLM_LOGGING_LEVEL": "INFO"}
        if interpreted:
            variables["TRITON_INTERPRET"] = "1"
        command = [sys.executable, "-m", "tests.engine.nursery", str(theirs.fileno())]
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], cwd=ROOT, env=os.environ | variables
        )
        theirs.close()
        atexit.register(self._end)

    def fork(self, stdin: int, log: int, replies: int) -> Forked:
        """Start a process that serves calls from `stdin`, with these three descriptors."""
        socket.send_fds(self._channel, [b"+"], [stdin, log, replies])
        pid = self._channel.recv(20)
        if not pid:
            raise RuntimeError("the imports of an engine's process failed")
        return Forked(int(pid))

    def _end(self) -> None:
        self._channel.close()
        self._process.wait()


def main() -> None:
    """Import, then fork whenever asked."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    early(interpreted="TRITON_INTERPRET" in os.environ)
    for name in _MODULES:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what is forked
    while True:
        message, received, *_ = socket.recv_fds(channel, 1, 3)
        if not message:
            return
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            channel.close()
            _become(*received)
        for one in received:
            os.close(one)
        channel.sendall(str(pid).encode())


def _become(stdin: int, log: int, replies: int) -> NoReturn:
    """Turn this process into one of an engine; never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for source, target in ((stdin, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for one in (stdin, log):
        os.close(one)
    serve(replies)
    # What an interpreter does at its end, but for tearing down every module.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
