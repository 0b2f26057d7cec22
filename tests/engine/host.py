"""Start a real vLLM engine in a process of its own and call it."""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.engine.answer import Answer, Ask, Seen
from tests.engine.child import FLAVOURS
from tests.engine.nursery import Nursery


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
        (theirs, writing), (reading, answering) = os.pipe(), os.pipe()
        self._stdin, self._replies = os.fdopen(writing, "wb"), os.fdopen(reading, "rb")
        nursery = Nursery.of(interpreted="TRITON_INTERPRET" in FLAVOURS[flavour])
        self._child = nursery.fork(theirs, self._log.fileno(), answering)
        os.close(theirs)
        os.close(answering)
        variables = _environment(flavour, plugins) | (env or {})
        pickle.dump((flavour, str(model), options, variables), self._stdin)
        self._stdin.flush()
        self._receive()

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

    def kill(self) -> None:
        """End the process at once, as a lack of memory would."""
        self._child.kill()

    def close(self) -> None:
        """End the process and wait for it."""
        if self._stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        if not self._child.wait(60):
            self._child.kill()
            self._child.wait(60)
        for one in (self._replies, self._log, self._child):
            one.close()

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
    return quiet | FLAVOURS[flavour] | only
