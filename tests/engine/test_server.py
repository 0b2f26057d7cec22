"""A real `vllm serve … --intervention` process over HTTP, and what it refuses at its start."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.engine.oracle import Oracle
from tests.engine.programs import Directions, edit

pytestmark = pytest.mark.engine

VLLM = Path(sys.executable).with_name("vllm")
QUIET = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_CI_ENV": "1", "VLLM_NO_USAGE_STATS": "1"}
PROMPT = "The capital of France is"
TOKENS = 12
# A server that is not up by then never will be; it takes about a tenth of this.
START_SECONDS = 300

DOCUMENT = """interv 1
vector v = "v.safetensors"
vector w = "w.safetensors"
program mixed {
  steer  v at post_block[15]
  cap    w at post_block[15] in [-0.02, 0.05]
  ablate v at post_block[15] strength 0.75
  steer  w at post_block[15] scale -0.5
  cap    w at post_block[15] in [-0.02, 0.05]
}
default mixed
"""


@contextmanager
def serving(model: Path, document: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(VLLM), "serve", str(model), "--intervention", str(document)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", "512"]
    command += ["--dtype", "float32", "--served-model-name", "m"]
    log = (document.parent / "server.log").open("wb")
    with log, subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | QUIET) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(server, url, Path(log.name))
            yield url
        finally:
            server.terminate()
            server.wait(60)


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health"):
                return
        except urllib.error.URLError:
            time.sleep(0.5)
    pytest.fail(f"the server did not come up:\n{log.read_text()[-4000:]}")


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as reply:
        answer: dict[str, Any] = json.load(reply)
    return answer


def test_a_server_answers_with_edited_text(model_path: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    directions = Directions.random(576, norm=60.0)
    directions.save(tmp_path)
    document = tmp_path / "mixed.interv"
    document.write_text(DOCUMENT)
    tokenizer, oracle = AutoTokenizer.from_pretrained(model_path), Oracle(model_path)
    ids = tokenizer(PROMPT)["input_ids"]
    change = {("post_block", 15): edit("mixed", directions)}
    edited = tokenizer.decode(oracle.answer(ids, TOKENS, change).ids)
    assert edited != tokenizer.decode(oracle.answer(ids, TOKENS).ids)
    body = {"model": "m", "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0}
    with serving(model_path, document) as url:
        answer = post(f"{url}/v1/completions", {**body, "ignore_eos": True})
        with pytest.raises(urllib.error.HTTPError) as refusal:
            post(f"{url}/v1/completions", {**body, "vllm_xargs": {"intervention": "mixed*2"}})
        assert refusal.value.code == 400
        message = json.load(refusal.value)["error"]["message"]
        assert message.startswith("error[E505]: a program per request is not supported yet")
    assert answer["choices"][0]["text"] == edited


def refused(model: Path, *documents: Path) -> str:
    command = [str(VLLM), "serve", str(model)]
    for document in documents:
        command += ["--intervention", str(document)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | QUIET, timeout=START_SECONDS
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Starting to load model" not in done.stdout + done.stderr
    return done.stderr


def test_a_broken_document_is_refused_before_the_model_loads(
    model_path: Path, tmp_path: Path
) -> None:
    document = tmp_path / "broken.interv"
    document.write_text(DOCUMENT.replace("ablate v at post_block[15]", "ablate v at post_blok[15]"))
    assert (
        "error[E201]: 'post_blok' is not a site\n"
        f" --> {document}:7:15\n"
        "  |\n"
        "7 |   ablate v at post_blok[15] strength 0.75\n"
        "  |               ^^^^^^^^^ not a site\n"
        "  |\n"
        "  = sites here: pre_attn, post_attn, post_block\n"
        "  = did you mean 'post_block'?\n"
    ) in refused(model_path, document)


def test_what_does_not_fit_the_model_is_refused_before_it_loads(
    model_path: Path, tmp_path: Path
) -> None:
    for name in ("v", "w"):
        save_file({name: np.ones(64, np.float32)}, tmp_path / f"{name}.safetensors")
    document = tmp_path / "narrow.interv"
    document.write_text(DOCUMENT.replace("post_block[15]", "post_block[99]"))
    stderr = refused(model_path, document)
    assert "layer 99" in stderr
    assert f"--> {document}:5" in stderr


def test_a_document_without_a_default_is_refused(model_path: Path, tmp_path: Path) -> None:
    Directions.random(576, norm=60.0).save(tmp_path)
    document = tmp_path / "nobody.interv"
    document.write_text(DOCUMENT.replace("default mixed\n", ""))
    assert (
        "error[E504]: no program would apply to any request\n"
        "  = programs here: mixed\n"
        "  = say which one applies: default mixed\n"
    ) in refused(model_path, document)
