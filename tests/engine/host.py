"""Start a real vLLM engine in a process of its own and call it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.engine.answer import Answer, Ask, Seen
from tests.engine.child import FLAVOURS

ROOT = Path(__file__).parents[2]


class EngineError(Exception):
    """The engine process raised; the text is its traceback."""


class EngineHost:
    """One engine: `with EngineHost("inductor", model, files=[…]) as engine: engine.generate(…)`.

    `flavour` is "inductor" or "traced" (engine A), or "B". Without `files` it is stock vLLM with
    the plugin installed; `plugins=False` keeps even that away. `slots` is how many different
    request expressions may run at once, `inline` whether requests may bring programs of their own,
    `absorb_norm` whether updates join the fused norms behind them, of which only B has any.
    """

    def __init__(
        self,
        flavour: str,
        model: str | Path,
        files: list[Path] | None = None,
        plugins: bool = True,
        env: dict[str, str] | None = None,
        slots: int = 256,
        inline: bool = False,
        absorb_norm: bool = False,
        **options: Any,
    ) -> None:
        sizes = {"max_model_len": 512, "max_num_seqs": 64, "skip_tokenizer_init": True}
        options = {**sizes, "dtype": "float32", **options}
        if files is not None:
            from interv.runtime.config import engine_args

            options |= engine_args(*files, slots=slots, inline=inline, absorb_norm=absorb_norm)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
        reading, writing = os.pipe()
        self._replies = os.fdopen(reading, "rb")
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.child", str(writing)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[writing],
            cwd=ROOT,
            env=_environment(flavour, plugins) | (env or {}),
        )
        os.close(writing)
        pickle.dump((flavour, str(model), options), self._stdin)
        self._stdin.flush()
        self._receive()

    @property
    def _stdin(self) -> Any:
        return self._child.stdin

    def _receive(self) -> Any:
        try:
            kind, reply = pickle.load(self._replies)
        except EOFError:
            kind, reply = "error", "the engine's process died\n" + self.log()[-4000:]
        if kind == "error":
            self.close()
            raise EngineError(reply)
        return reply

    def call(self, name: str, *args: Any) -> Any:
        """Call a method of `Child` in the engine's process."""
        pickle.dump((name, args), self._stdin)
        self._stdin.flush()
        return self._receive()

    def generate(
        self, prompts: list[list[int]], tokens: int = 8, program: str | None = "default"
    ) -> list[Answer]:
        """Return greedy answers, under `program` where one is named and unedited where None is."""
        said = {"default": None, None: "off"}.get(program, program)
        answers: list[Answer] = self.call("generate", prompts, tokens, said)
        return answers

    def ask(self, asks: Sequence[Ask]) -> list[list[Answer]]:
        """Return the samples of each request, run together as it says; none where it was aborted.

        `seen` tells what the scheduler did on the way.
        """
        samples: list[list[Answer]] = self.call("ask", list(asks))
        return samples

    def answers(self, asks: Sequence[Ask]) -> list[Answer]:
        """Return the one answer of each request, run together."""
        return [only for (only,) in self.ask(asks)]

    def alone(self, asks: Sequence[Ask]) -> list[Answer]:
        """Return the one answer of each request, run one after another."""
        return [only for one in asks for only in self.answers([replace(one, arrives=0)])]

    def seen(self) -> Seen:
        """Return what the scheduler did during the last `ask`."""
        seen: Seen = self.call("seen")
        return seen

    def log(self) -> str:
        """Return what the process has printed."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def close(self) -> None:
        """End the process and wait for it."""
        if self._child.poll() is None:
            self._stdin.close()
            try:
                self._child.wait(60)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        for stream in (self._replies, self._stdin, self._log):
            stream.close()

    def __enter__(self) -> EngineHost:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _environment(flavour: str, plugins: bool) -> dict[str, str]:
    quiet = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "INFO",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    only = {} if plugins else {"VLLM_PLUGINS": "none"}
    return os.environ | quiet | FLAVOURS[flavour] | only
