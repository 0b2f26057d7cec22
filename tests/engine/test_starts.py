"""Engines with inline programs, started as users start them: other processes are spawned."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine.answer import Answer
from tests.engine.models import HIDDEN_SIZE, tiny_model
from tests.engine.oracle import Oracle
from tests.engine.programs import Directions
from tests.engine.test_server import QUIET, START_SECONDS, VLLM, wait_until_up
from tests.tolerances import ENGINE_LOGPROB

pytestmark = pytest.mark.engine

PROMPT, TOKENS = [5, 9, 40, 7, 11], 4
DOCUMENT = """interv 1
vector v = "v.safetensors"
program calm { steer v at post_block[1] scale 0.5 }
"""
INLINE = "interv 1  program mine { steer v at post_block[1] scale -0.75 when not prompt[0] }"
SCRIPT = """
import json, sys
from vllm import LLM, SamplingParams
import interv

if __name__ == "__main__":
    model, document, program, prompt, tokens = sys.argv[1:]
    sizes = {"max_model_len": 256, "dtype": "float32", "skip_tokenizer_init": True}
    llm = LLM(model, **sizes, **interv.engine_args(document, inline=True))
    params = SamplingParams(max_tokens=int(tokens), temperature=0, logprobs=0, detokenize=False,
                            ignore_eos=True, extra_args={"intervention": program})
    (done,) = llm.generate([{"prompt_token_ids": json.loads(prompt)}], params, use_tqdm=False)
    (one,) = done.outputs
    chosen = [step[token].logprob for token, step in zip(one.token_ids, one.logprobs)]
    print("ANSWER", json.dumps([list(one.token_ids), chosen]))
"""


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("starts")
    Directions.random(HIDDEN_SIZE, 5.0).save(folder)
    path = folder / "calm.interv"
    path.write_text(DOCUMENT)
    return path


def environment() -> dict[str, str]:
    """Return what a user's shell has: nothing that keeps an engine in one process."""
    kept = {k: v for k, v in os.environ.items() if k != "VLLM_ENABLE_V1_MULTIPROCESSING"}
    return kept | QUIET


def check(ids: list[int], chosen: list[float] | None = None) -> None:
    """Compare an answer with the oracle's under the inline program."""
    v = Directions.random(HIDDEN_SIZE, 5.0).v

    def edit(h: Any) -> Any:
        out = h - 0.75 * v
        out[:, 0] = h[:, 0]
        return out

    expected = Oracle(tiny_model("llama")).follow(PROMPT, ids, {("post_block", 1): edit})
    assert ids == expected.ids
    chosen = expected.logprobs if chosen is None else chosen
    assert Answer(ids, chosen, expected.prompt_logprobs).distance(expected) < ENGINE_LOGPROB


def test_a_script_with_an_inline_program(document: Path) -> None:
    script = document.parent / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tiny_model("llama")), str(document)]
    command += [INLINE, json.dumps(PROMPT), str(TOKENS)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=START_SECONDS
    )
    found = [one for one in done.stdout.splitlines() if one.startswith("ANSWER")]
    assert found, done.stderr[-4000:]
    check(*json.loads(found[0].removeprefix("ANSWER")))


@contextmanager
def serving(document: Path, *options: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(VLLM), "serve", str(tiny_model("llama")), "--intervention", str(document)]
    command += ["--intervention-inline", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--max-model-len", "256", "--dtype", "float32", "--served-model-name", "m"]
    command += ["--skip-tokenizer-init", *options]
    log = document.parent / f"{'-'.join(options).strip('-')}.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out, env=environment()) as server,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_up(server, url, log)
            yield url
        finally:
            server.terminate()
            server.wait(60)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [("--api-server-count", "2"), ("--data-parallel-size", "2"), ("--enforce-eager",), ("-O0",)],
    ids=lambda options: "".join(options),
)
def test_a_server_with_an_inline_program(document: Path, options: tuple[str, ...]) -> None:
    body = {"model": "m", "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0}
    body |= {"ignore_eos": True, "return_token_ids": True, "vllm_xargs": {"intervention": INLINE}}
    with serving(document, *options) as url:
        # More than once: every process of the server has to know the vectors.
        for _ in range(6):
            request = urllib.request.Request(
                f"{url}/v1/completions",
                json.dumps(body).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request) as reply:
                (choice,) = json.load(reply)["choices"]
            check(choice["token_ids"])
