"""Every route of a server: a program is applied or refused, and told of in the answer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import interv
from interv.sinks.results import engine_folder
from interv.sinks.spool import Spool
from tests.engine.programs import Directions
from tests.engine.routes import GREEDY, ROUTES, TALK, TOKENS, Route, send, table
from tests.engine.test_server import QUIET, START_SECONDS, VLLM, serving

pytestmark = pytest.mark.engine

DOCUMENT = """interv 1
vector v = "v.safetensors"
sink rows = memory()
program joy { steer v at post_block[15] }
program probe { capture at post_block[15] tokens all to rows }
default probe
"""
STORE = {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}
PATIENCE_S = 60
BOTH = {"intervention": "joy + probe", "intervention_report": "true"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("routes")
    Directions.random(576, norm=60.0).save(folder)
    path = folder / "joy.interv"
    path.write_text(DOCUMENT)
    return path


@pytest.fixture(scope="module")
def server(model_path: Path, document: Path) -> Iterator[str]:
    options = ("--enable-scale-out", "--tool-call-parser", "hermes", "--enable-auto-tool-choice")
    with serving(model_path, document, *options, env=STORE) as url:
        yield url


def test_the_table_has_these_routes() -> None:
    assert list(table()) == list(ROUTES)


@pytest.mark.parametrize("name", ROUTES)
def test_what_the_table_says_of_a_route(server: str, name: str) -> None:
    route, url = ROUTES[name], f"{server}{name}"
    said = [applied(route, url), wrong_name(route, url), told(route, url), streamed(route, url)]
    assert tuple(said) == table()[name]


def applied(route: Route, url: str) -> str:
    off, joy = (send(url, route.body, intervention=one) for one in ("off", "joy*2"))
    if joy.status == 400:
        assert joy.error.startswith(f"error[E512]: {urllib.parse.urlsplit(url).path} takes no ")
        assert send(url, route.body).status == 200
        return "400"
    if not route.answer:
        (rendered,) = joy.json if isinstance(joy.json, list) else [joy.json]
        assert rendered["sampling_params"]["extra_args"] == {"intervention": "joy*2"}
        return "passed on"
    pair = [without_ids(one.json[route.answer]) for one in (off, joy)]
    return "applied" if pair[0] != pair[1] else "unedited"


def without_ids(answer: Any) -> list[Any]:
    return [{key: one for key, one in each.items() if key != "id"} for each in answer]


def wrong_name(route: Route, url: str) -> str:
    for more in ({}, {"stream": True}) if route.streams else ({},):
        refused = send(url, {**route.body, **more}, intervention="jou")
        assert re.match(r"error\[E(205|512)\]: ", refused.error)
    return "400"


def told(route: Route, url: str) -> str:
    # The default captures, so that a request that says nothing has a handle as well.
    quiet, both = send(url, route.body), send(url, route.body, **BOTH)
    if not route.answer:
        assert "interv_captures" not in quiet.text + both.text
        return "no"
    assert "interv" not in quiet.json["kv_transfer_params"]
    rows = interv.edited_rows(both.json)
    each = rows if isinstance(rows, list) else [rows]
    assert all(list(one) == ["joy"] and one["joy"]["post_block[15]"] > 0 for one in each if one)
    for answer in (quiet.json, both.json):
        records = interv.captured(answer)
        assert len({one.request for one in records}) == len(records) == route.choices
        assert {one.ended for one in records} == {"finished"}
    return "list" if isinstance(rows, list) and len(rows) == route.choices > 1 else "yes"


def streamed(route: Route, url: str) -> str:
    if not route.streams:
        return "no streams"
    plain = send(url, route.body, **BOTH)
    reply = send(url, {**route.body, "stream": True}, **BOTH)
    *earlier, last = reply.events
    assert "interv_captures" not in json.dumps(earlier)
    assert interv.edited_rows(last) == interv.edited_rows(plain.json)
    (record,) = interv.captured(last)
    assert record.ended == "finished"
    if route.ends:
        assert last["type"] == route.ends
        return f"`{route.ends}`"
    assert reply.text.endswith("data: [DONE]\n\n")
    assert last["choices"][0]["finish_reason"] == "length"
    return "last chunk"


def test_the_last_chunk_may_be_the_one_with_the_usage(server: str) -> None:
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    body = {**GREEDY, "messages": TALK, **usage}
    *_, before, last = send(f"{server}/v1/chat/completions", body, **BOTH).events
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], TOKENS)
    assert interv.edited_rows(before) is None
    # All tokens but the last, which is never fed.
    edited = last["usage"]["prompt_tokens"] + TOKENS - 1
    assert interv.edited_rows(last) == {"joy": {"post_block[15]": edited}}


@pytest.mark.parametrize("stream", [False, True])
def test_every_choice_has_its_entry(server: str, stream: bool) -> None:
    prompts = ["A", "Once upon a time", "Tell me more about it, please"]
    body = {**GREEDY, "prompt": prompts, "n": 2, "temperature": 1, "stream": stream}
    reply = send(f"{server}/v1/completions", {**body, "ignore_eos": True}, **BOTH)
    answer = reply.events[-1] if stream else reply.json
    lengths = [send(f"{server}/tokenize", {"model": "m", "prompt": one}).json for one in prompts]
    expected = [one["count"] + TOKENS - 1 for one in lengths for _ in range(2)]
    assert len(set(expected)) == 3
    rows = [{"joy": {"post_block[15]": one}} for one in expected]
    assert interv.edited_rows(answer) == rows
    entries = answer["kv_transfer_params"]["interv_captures"]
    assert [one["sample"] for one in entries] == [0, 1] * 3
    assert [one["handle"] for one in entries[::2]] == [one["handle"] for one in entries[1::2]]
    records = interv.captured(answer)
    assert [one.sample for one in records] == [0, 1] * 3
    assert [sum(len(part.position) for part in one.parts) for one in records] == expected


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["completions", "chat/completions", "messages"])
def test_a_stop_string_is_an_end_like_others(server: str, name: str, stream: bool) -> None:
    said = {"prompt": "Once upon a time"} if name == "completions" else {"messages": TALK}
    stop = {"stop_sequences" if name == "messages" else "stop": ["e"], "max_tokens": 40}
    body = {**GREEDY, **said, **stop, "stream": stream}
    reply = send(f"{server}/v1/{name}", body, **BOTH)
    assert ('"stop_sequence":"e"' if name == "messages" else '"stop_reason":"e"') in reply.text
    answer = reply.events[-1] if stream else reply.json
    (record,) = interv.captured(answer)
    assert record.ended == "finished"
    (edited,) = interv.edited_rows(answer)["joy"].values()
    # The engine may have gone on for a step before it was told.
    assert edited - sum(len(part.position) for part in record.parts) in (0, 1)


def test_a_tool_call_is_edited_and_told_of(server: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    chosen = {"type": "function", "function": {"name": "f"}}
    more = {"tools": [tool], "tool_choice": chosen, "vllm_xargs": BOTH, "max_tokens": 40}
    reply = send(f"{server}/v1/chat/completions", {**GREEDY, "messages": TALK, **more})
    assert reply.status == 200, reply.text
    answer = reply.json
    # The grammar of the call holds; too few tokens for its end, so that it is not parsed.
    begun = '<tool_call>\n{"name": "f", "arguments": '
    assert answer["choices"][0]["message"]["content"].startswith(begun)
    usage = answer["usage"]
    fed = usage["prompt_tokens"] + usage["completion_tokens"] - 1
    assert interv.edited_rows(answer) == {"joy": {"post_block[15]": fed}}
    (record,) = interv.captured(answer)
    assert len(record.parts[0].position) == fed


def test_a_client_that_hangs_up_has_aborted(server: str) -> None:
    body = {**GREEDY, "prompt": "Once", "max_tokens": 400, "ignore_eos": True, "stream": True}
    headers = {"Content-Type": "application/json", "X-Request-Id": "hung-up"}
    data = json.dumps({**body, "stop": ["#@"]}).encode()
    with urllib.request.urlopen(
        urllib.request.Request(f"{server}/v1/completions", data, headers)
    ) as reply:
        assert reply.readline().startswith(b"data: {")
    # Its answer would have had the handle; here it is known by the name that its client gave it.
    deadline = time.monotonic() + PATIENCE_S
    while not (found := results_of("cmpl-hung-up-0")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (detail,) = (one["detail"] for one in found)
    (record,) = Spool(Path(detail["path"]).parents[1]).read(detail["handle"])
    assert record.ended == "aborted"


def results_of(request: str) -> list[Any]:
    """Return what has become of the rows of a request to any engine of this machine."""
    written = engine_folder("any").parent.glob("interv-*.captures/results/*/*.json")
    found = (one for path in written for one in json.loads(path.read_text())["results"])
    return [one for one in found if one["request"] == request]


WRONG = [
    ({"vllm_xargs": {"interventon": "joy"}}, "vllm_xargs.interventon", "intervention"),
    ({"vllm_xargs": {"interventions": "joy"}}, "vllm_xargs.interventions", "intervention"),
    ({"vllm_xargs": {"Intervention": "joy"}}, "vllm_xargs.Intervention", "intervention"),
    ({"vllm_xargs": {"intervention_repport": 1}}, "vllm_xargs.intervention_repport", None),
    ({"intervention": "joy"}, "intervention", "intervention"),
    ({"interv": "joy"}, "interv", "intervention"),
    ({"extra_args": {"intervention": "joy"}}, "extra_args.intervention", "intervention"),
    ({"vllm_xarg": {"intervention": "joy"}}, "vllm_xarg.intervention", "intervention"),
    (
        {"extra_body": {"vllm_xargs": {"intervention": "joy"}}},
        "extra_body.vllm_xargs.intervention",
        "intervention",
    ),
]


@pytest.mark.parametrize("name", ROUTES)
def test_a_misspelt_or_misplaced_field_is_refused(server: str, name: str) -> None:
    home = "vllm_xargs"
    if name == "/inference/v1/generate":
        home = "sampling_params.extra_args"
    for more, path, meant in WRONG:
        refused = send(f"{server}{name}", {**ROUTES[name].body, **more})
        first, *_, last = refused.error.splitlines()
        assert first == f"error[E511]: a request has no field '{path}'"
        assert last == f"  = did you mean '{home}.{meant or 'intervention_report'}'?"


def test_fields_of_others_are_theirs(server: str) -> None:
    others = {"intersection": 1, "medical_intervention": "x", "prevention": "y"}
    schema = {"type": "object", "properties": {"intervention": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    body = {**GREEDY, "messages": TALK, "metadata": {"intervention": "none"}, "tools": tools}
    body |= {"tool_choice": "none", "invention": 1}
    reply = send(f"{server}/v1/chat/completions", body, **others)
    assert reply.status == 200


def test_a_request_that_says_it_twice_or_in_no_object(server: str) -> None:
    url, route = f"{server}/inference/v1/generate", ROUTES["/inference/v1/generate"]
    own = {**route.body["sampling_params"], "extra_args": {"intervention": "joy"}}
    assert send(url, {**route.body, "sampling_params": own}, intervention="joy").error == (
        "error[E514]: the request says what it wants twice,"
        " in 'sampling_params.extra_args' and 'vllm_xargs'"
    )
    alone = send(url, {**route.body, "sampling_params": own})
    beside = send(url, route.body, intervention="joy")
    assert alone.json["choices"] == beside.json["choices"]
    assert send(url, {**route.body, "vllm_xargs": "joy"}).error == (
        "error[E516]: 'vllm_xargs' is an object of fields, not str"
    )


def test_a_response_from_the_background_tells_the_same(server: str) -> None:
    url, body = f"{server}/v1/responses", ROUTES["/v1/responses"].body
    queued = send(url, {**body, "background": True}, **BOTH).json
    deadline = time.monotonic() + PATIENCE_S
    while (found := send(f"{url}/{queued['id']}").json)["status"] in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert interv.edited_rows(found) == interv.edited_rows(send(url, body, **BOTH).json)
    assert len(interv.captured(found)) == 1
    stream = send(url, {**body, "background": True, "stream": True}, **BOTH)
    assert interv.edited_rows(stream.events[-1]) == interv.edited_rows(found)


def test_beams_that_would_be_edited_wrongly_are_refused(server: str) -> None:
    beams = {**GREEDY, "prompt": "Once", "use_beam_search": True, "n": 2}
    refused = send(f"{server}/v1/completions", beams)
    assert refused.error.startswith(
        "error[E515]: beam search cannot have the default program 'probe'\n"
    )
    off = send(f"{server}/v1/completions", beams, intervention="off")
    assert len(off.json["choices"]) == 2
    assert off.json["kv_transfer_params"] is None
    more = send(f"{server}/v1/completions", beams, intervention="off", intervention_report="true")
    assert more.error.startswith("error[E507]: beam search does not carry a request's ")


@pytest.mark.slow
def test_the_lines_of_a_batch_file(model_path: Path, document: Path, tmp_path: Path) -> None:
    said = [
        {"vllm_xargs": BOTH},
        {"vllm_xargs": BOTH, "n": 2, "temperature": 1},
        {"vllm_xargs": {"interventon": "joy"}},
        {"intervention": "joy"},
    ]
    lines = [
        {"custom_id": str(i), "method": "POST", "url": "/v1/chat/completions", "body": body}
        for i, body in enumerate({**GREEDY, "messages": TALK, **one} for one in said)
    ]
    asked, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    asked.write_text("\n".join(map(json.dumps, lines)))
    command = [str(VLLM), "run-batch", "--model", str(model_path), "--served-model-name", "m"]
    command += ["--intervention", str(document), "-i", str(asked), "-o", str(answered)]
    command += ["--dtype", "float32", "--max-model-len", "512"]
    subprocess.run(command, check=True, env=os.environ | QUIET, timeout=START_SECONDS)
    found = [json.loads(line) for line in answered.read_text().splitlines()]
    one, two, misspelt, misplaced = sorted(found, key=lambda line: int(line["custom_id"]))
    rows = interv.edited_rows(one["response"]["body"])
    assert list(rows["joy"]) == ["post_block[15]"]
    assert interv.edited_rows(two["response"]["body"]) == [rows, rows]
    for line in (misspelt, misplaced):
        assert line["response"]["status_code"] == 400
        assert line["error"]["error"]["message"].startswith("error[E511]: a request has no field")


def test_samples_of_a_stream_that_stop_strings_end(server: str) -> None:
    body = {**GREEDY, "prompt": "Once upon a time", "n": 4, "temperature": 1, "stream": True}
    events = send(f"{server}/v1/completions", {**body, "max_tokens": 40, "stop": ["e"]}, **BOTH)
    records, rows = interv.captured(events.events[-1]), interv.edited_rows(events.events[-1])
    assert [one.sample for one in records] == [0, 1, 2, 3]
    assert {one.ended for one in records} == {"finished"}
    assert isinstance(rows, list)
    assert [one is not None and one["joy"]["post_block[15]"] > 0 for one in rows] == [True] * 4
