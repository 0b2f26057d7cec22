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
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import interv
from interv.captures import load_captures
from tests.engine.oracle import Oracle
from tests.engine.programs import Directions, edit
from tests.tolerances import SMOLLM2_ROWS

pytestmark = [pytest.mark.engine, pytest.mark.versions]

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
program late { steer v at post_block[15] scale 0.5 when generated }
sink rows = memory()
sink acts = filesystem("acts/")
program probe {
  capture at post_block[15] tokens prompt to rows
  capture at post_block[15] tokens prompt[-1] to acts keep marked
}
program thinks { kv on }
default mixed
kv r1kv { budget = 24  buffer = 16  default = off }
"""
INLINE = "interv 1  program mine { steer v at post_block[15] scale -1 when not prompt[0] }"


@contextmanager
def serving(
    model: Path, document: Path, *options: str, env: Mapping[str, str] = MappingProxyType({})
) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(VLLM), "serve", str(model), "--intervention", str(document)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", "512"]
    command += ["--dtype", "float32", "--served-model-name", "m", "--intervention-inline", *options]
    log = (document.parent / "server.log").open("wb")
    env = os.environ | QUIET | env
    with log, subprocess.Popen(command, stdout=log, stderr=log, env=env) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_up(server, url, Path(log.name))
            yield url
        finally:
            server.terminate()
            server.wait(60)


def wait_until_up(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health"):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    pytest.fail(f"the server did not come up:\n{log.read_text()[-4000:]}")


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as reply:
        answer: dict[str, Any] = json.load(reply)
    return answer


@pytest.fixture(scope="module")
def directions() -> Directions:
    return Directions.random(576, norm=60.0)


@pytest.fixture(scope="module")
def server(
    model_path: Path, directions: Directions, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    directions.save(folder)
    document = folder / "mixed.interv"
    document.write_text(DOCUMENT)
    with serving(model_path, document) as url:
        yield url


def ask(url: str, body: dict[str, Any] | None = None, **xargs: Any) -> dict[str, Any]:
    fields = {"model": "m", "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0}
    extra = {"vllm_xargs": xargs} if xargs else {}
    return post(f"{url}/v1/completions", {**fields, "ignore_eos": True, **extra, **(body or {})})


def test_requests_over_http_get_the_program_they_ask_for(
    server: str, model_path: Path, directions: Directions
) -> None:
    from transformers import AutoTokenizer

    tokenizer, oracle = AutoTokenizer.from_pretrained(model_path), Oracle(model_path)
    ids = tokenizer(PROMPT)["input_ids"]
    v = directions.v

    def text(change: Any) -> str:
        edits = None if change is None else {("post_block", 15): change}
        answer = oracle.answer(ids, TOKENS, edits)
        return str(tokenizer.decode(answer.ids, skip_special_tokens=True))

    def at(where: slice, row: torch.Tensor) -> Any:
        def change(h: torch.Tensor) -> torch.Tensor:
            h = h.clone()
            h[..., where, :] += row
            return h

        return change

    expected = {
        None: text(edit("mixed", directions)),
        "off": text(None),
        "late*2": text(at(slice(len(ids), None), v)),
        INLINE: text(at(slice(1, None), -v)),
    }
    assert len(set(expected.values())) == 4
    # All at once, so that they share batches.
    with ThreadPoolExecutor(8) as pool:
        asked = [*expected] * 2
        xargs = [{} if one is None else {"intervention": one} for one in asked]
        answers = list(pool.map(lambda one: ask(server, **one), xargs))
    assert [one["choices"][0]["text"] for one in answers] == [expected[one] for one in asked]


def test_the_helper_for_the_openai_sdk(server: str) -> None:
    from openai import BadRequestError, OpenAI

    create: Any = OpenAI(base_url=f"{server}/v1", api_key="none").chat.completions.create
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    chosen = interv.openai_args("late*2", report=True)
    answer = create(**chat, temperature=0, **chosen)
    assert interv.edited_rows(answer) == {"late": {"post_block[15]": 3}}
    plain = create(**chat, **interv.openai_args("off", report=True))
    assert interv.edited_rows(plain) == {}
    with pytest.raises(BadRequestError, match="no program is called 'lat'"):
        create(**chat, **interv.openai_args("lat"))


WRONG = {
    "mixd": "error[E205]: no program is called 'mixd'\n",
    "mixed*": "error[E102]: the text ends where a number should stand\n",
    "mixed*-1": "error[E405]: program 'mixed' caps, ablates or replaces",
    "interv 1 program p { steer v at post_block[3] }": "error[E408]: this engine has not spliced",
    '{"interv": ' + "9" * 5000 + "}": "error[E110]: '<request>' holds a number of 5000 characters",
    f"interv 1 program p {{ steer v at x[{','.join('1' * 20_000)}] }}": "error[E109]: '<request>'",
}


@pytest.mark.parametrize("asked", WRONG)
@pytest.mark.parametrize("route", ["completions", "chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_request_is_http_400(server: str, asked: str, route: str, stream: bool) -> None:
    body = {"model": "m", "max_tokens": 4, "stream": stream, "vllm_xargs": {"intervention": asked}}
    said = {"prompt": PROMPT} if route == "completions" else {"messages": [{"role": "user"}]}
    said = {"messages": [{"role": "user", "content": "Hello"}]} if "messages" in said else said
    with pytest.raises(urllib.error.HTTPError) as refusal:
        post(f"{server}/v1/{route}", {**body, **said})
    assert refusal.value.code == 400
    message = json.load(refusal.value)["error"]["message"]
    assert message.startswith(WRONG[asked])


def test_beam_search_with_a_program_is_refused(server: str) -> None:
    beams = {"use_beam_search": True, "n": 2, "ignore_eos": False}
    with pytest.raises(urllib.error.HTTPError) as refusal:
        ask(server, beams, intervention="late")
    assert refusal.value.code == 400
    assert "error[E507]" in json.load(refusal.value)["error"]["message"]


def counted(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    return dict(
        (name, float(value))
        for name, value in (line.rsplit(" ", 1) for line in lines if line.startswith("interv_"))
    )


def test_metrics_count_the_rows_that_were_edited(server: str) -> None:
    late = 'interv_edited_rows_total{program="late",site="post_block[15]"}'
    before = counted(server)
    ask(server, {"max_tokens": 6}, intervention="late")
    after = counted(server)
    # The last token is sampled and never fed.
    assert after[late] - before[late] == 5
    others = [name for name in after if "edited_rows_total" in name and name != late]
    assert {name: after[name] for name in others} == {name: before[name] for name in others}
    assert after["interv_slots"] == 256
    assert after["interv_slots_used"] >= 1
    assert after["interv_requests_held"] == 0


def test_a_compressed_request_over_http(server: str) -> None:
    names = ("compactions", "dropped_tokens", "freed_blocks", "freed_bytes")

    def counts() -> list[float]:
        found = counted(server)
        return [found[f"interv_kv_{name}_total"] for name in names]

    before = counts()
    ask(server, {"max_tokens": 50})
    assert counts() == before
    fed = ask(server, {"max_tokens": 80}, intervention_kv="on")["usage"]["total_tokens"] - 1
    # At 40 tokens and after every 16 more, once the next token is fed; no block has so few.
    times = 1 + (fed - 1 - 40) // 16
    assert times > 2
    assert [a - b for a, b in zip(counts(), before, strict=True)] == [times, 16 * times, 0, 0]
    for asked in ("thinks", "interv 1 program mine { kv on }"):
        before = counts()
        fed = ask(server, {"max_tokens": 40}, intervention=asked)["usage"]["total_tokens"] - 1
        assert fed > 40
        assert counts()[0] - before[0] == 1 + (fed - 1 - 40) // 16
    with pytest.raises(urllib.error.HTTPError) as refusal:
        ask(server, intervention_kv="yes")
    assert refusal.value.code == 400
    message = json.load(refusal.value)["error"]["message"]
    assert message.startswith("error[E580]: 'intervention_kv' is \"on\" or \"off\", not 'yes'")


def call(url: str, method: str = "GET") -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, method=method)) as reply:
        data: bytes = reply.read()
    return data


def test_captured_rows_over_http(server: str, model_path: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    answer = ask(server, intervention="probe", intervention_tag="night")
    where = answer["kv_transfer_params"]["interv_captures"]
    place = f"{server}/v1/captures/{where['handle']}"
    in_memory, held = json.loads(call(f"{place}?wait_s=30"))["results"]
    assert (in_memory["status"], held["status"]) == ("ok", "held")
    # In the file as in shared memory, which this process can read too.
    (record,) = interv.captured(answer)
    file = tmp_path / "rows.safetensors"
    file.write_bytes(call(f"{place}/rows/0"))
    ((written, rows),) = ((one, load_captures(tmp_path).rows) for one in record.parts)
    assert torch.equal(rows, written.rows)
    assert (record.tag, record.program, record.ended) == ("night", "probe", "finished")
    ids = AutoTokenizer.from_pretrained(model_path)(PROMPT)["input_ids"]
    seen: list[torch.Tensor] = []
    keep = {("post_block", 15): lambda h: seen.append(h[0]) or h}
    Oracle(model_path).follow(ids, [0], keep)
    assert written.token_id.tolist() == ids
    assert (written.rows - seen[0]).abs().max() < SMOLLM2_ROWS
    assert json.loads(call(f"{place}/mark", "POST")) == {"handle": where["handle"], "marked": 1}
    assert json.loads(call(place, "DELETE"))["forgotten"] == 1


@pytest.mark.parametrize(
    ("path", "method", "said"),
    [
        ("0123456789abcdef", "GET", "error[E563]: the captured rows of '0123456789abcdef'"),
        ("0123456789abcdef/mark", "POST", "error[E566]: no rows of request '0123456789abcdef'"),
        ("..%2Fetc", "GET", "Not Found"),
        ("a_b", "GET", "error[E562]: 'a_b' is not the handle of a captured request"),
    ],
)
def test_an_unknown_handle_is_http_404(server: str, path: str, method: str, said: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        call(f"{server}/v1/captures/{path}", method)
    assert refusal.value.code == 404
    assert said in refusal.value.read().decode()


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


def test_documents_without_a_program_are_refused(model_path: Path, tmp_path: Path) -> None:
    document = tmp_path / "nothing.interv"
    document.write_text("interv 1\n")
    assert (
        "error[E504]: the documents have no program and no KV policy, so nothing could be done\n"
        "  = add one: program calm { … }\n"
    ) in refused(model_path, document)
