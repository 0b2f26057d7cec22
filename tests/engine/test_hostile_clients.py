"""One server as operators have it: what it says at its start, load with hostile clients, Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner, Result

from interv.cli import build
from tests.engine.hostile import DOCUMENT, KINDS, PROMPTS, SLOTS, Tally, alone, complete, load
from tests.engine.operated import KEY, Operated, Usage, operated
from tests.engine.programs import Directions

pytestmark = pytest.mark.engine

# What a process may gain under load once it is warm. Admission remembers 64 inline programs of up
# to 300 kB and 4096 expressions, and the allocator keeps an arena for each thread; a leak of a
# single request's rows or answer would pass this within the first thousand requests.
MOST_RSS_MIB = 64
# Sockets that the kernel has not closed yet, and pools of threads that fill up by use.
MOST_FILES, MOST_THREADS = 8, 8
SETTLE_S = 60
# Folders of ours, installed or as they are in the repository.
OURS = ("interv", "runtime", "sinks", "codegen", "passes")


@pytest.fixture(scope="module")
def server(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    folder = tmp_path_factory.mktemp("operated")
    Directions.random(576, norm=60.0).save(folder)
    document = folder / "hostile.interv"
    document.write_text(DOCUMENT)
    more = ["--intervention-inline", "--intervention-slots", str(SLOTS), "--max-num-seqs", "90"]
    with operated(model_path, document, more) as one:
        yield one


def doctor(url: str, key: str = KEY) -> Result:
    arguments = ["doctor", "--server", url, "--key", key]
    return CliRunner().invoke(build(arguments), arguments, env={"COLUMNS": "400"})


def rows(result: Result) -> list[list[str]]:
    """Return the cells of what the doctor printed, without the headings."""
    lines = result.output.splitlines()
    marked = [line for line in lines if line.lstrip().startswith(("✓", "!", "✗"))]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in marked]


def test_the_log_says_once_what_is_armed(server: Operated) -> None:
    programs = "joy, formal, gloom, dry, gated, probe, files, shards, keepm"
    first, second, third = server.said()[:3]
    assert first == (
        f"interv: armed by hostile.interv: 9 programs ({programs}), default none,"
        " inline programs taken"
    )
    assert second == (
        "interv: 35 sites (post_attn[5..25], post_block[5, 8, 10..20, 25]),"
        " 3 sinks (mem: memory, packed: filesystem, sharded: filesystem), no KV policy"
    )
    assert third.startswith("interv: 8 slots of 16 columns, 90 reports at once; ")
    assert len(server.said("interv: armed by")) == 1


def test_the_doctor_of_a_running_server(server: Operated) -> None:
    result = doctor(server.url)
    assert result.exit_code == 0, result.output
    assert result.output.endswith("everything works there\n")
    found = {what: said for _, what, said, *_ in rows(result)}
    assert found["models"] == "m"
    assert found["documents"] == "hostile.interv"
    assert found["programs"].endswith("shards, keepm; default none; inline taken")
    assert found["sinks"] == "mem (memory), packed (filesystem), sharded (filesystem)"
    assert found["KV policy"] == "none"
    assert found["slots"].endswith("of 8 used, 0 requests held, 90 reports at once")
    assert found["admission"] == "a program that does not exist is refused with HTTP 400"
    # No cost: nothing was generated for it.
    assert server.metric("vllm:generation_tokens_total") == 0


def test_the_doctor_with_a_wrong_key(server: Operated) -> None:
    result = doctor(server.url, "wrong")
    assert result.exit_code == 1
    assert rows(result)[-1] == [
        "✗",
        "API key",
        "refused (HTTP 401)",
        "name it by --key, or by VLLM_API_KEY",
    ]
    assert result.output.endswith("not working: API key\n")


def test_what_is_armed_over_http(server: Operated) -> None:
    with server.client() as client, server.client(key=None) as stranger:
        reply = client.get("/v1/interventions")
        assert stranger.get("/v1/interventions").status_code == 401
        assert client.post("/v1/interventions").status_code == 405
    answer = reply.json()
    assert answer["slots"]["total"] == SLOTS
    assert (answer["reports"], answer["held"], answer["default"]) == (90, 0, None)
    assert answer["programs"][0] == {"name": "joy", "edits": ["post_block[10..20]"], "captures": []}
    assert answer["programs"][-1] == {"name": "keepm", "edits": [], "captures": ["post_block[20]"]}
    # Nothing of where the server keeps its files.
    assert str(server.log.parent) not in reply.text
    assert "/" not in reply.text


def idle(server: Operated) -> None:
    """Wait until nothing runs and nothing waits."""
    until = time.monotonic() + SETTLE_S
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    while any(server.metric(name) for name in names):
        assert time.monotonic() < until, "requests of clients that have left still run"
        time.sleep(0.2)


def grown(before: Mapping[int, Usage], after: Mapping[int, Usage]) -> list[str]:
    """Say which process takes more than it did."""
    assert before.keys() == after.keys()
    return [
        f"{pid}: {was} became {now}"
        for pid, was, now in ((pid, before[pid], after[pid]) for pid in before)
        if now.rss_mib > was.rss_mib + MOST_RSS_MIB
        or now.files > was.files + MOST_FILES
        or now.threads > was.threads + MOST_THREADS
    ]


def settled(found: Callable[[], list[str]]) -> list[str]:
    """Return what is still found after a while: connections of clients close late."""
    until = time.monotonic() + SETTLE_S
    while (left := found()) and time.monotonic() < until:
        time.sleep(0.5)
    return left


@pytest.mark.parametrize(
    ("clients", "seconds"),
    [(len(KINDS), 5.0), pytest.param(96, 60.0, marks=pytest.mark.slow)],
)
def test_hostile_clients(server: Operated, clients: int, seconds: float) -> None:
    tally = Tally(alone(server))
    load(server, tally, clients, seconds / 2, seed=1)  # warm: caches and pools fill
    idle(server)
    before = server.usage()
    load(server, tally, clients, seconds, seed=2)
    idle(server)
    assert tally.wrong == []
    assert tally.of(5) == 0
    assert settled(lambda: grown(before, server.usage())) == []
    # What it says afterwards is what it said before.
    again = alone(server, PROMPTS[:1])
    assert again == {asked: tally.right[asked] for asked in again}
    assert [line for line in server.said("Traceback")] == []
    print(dict(tally.statuses), before, server.usage())


def test_interrupted_it_ends_and_leaves_nothing(server: Operated) -> None:
    """Ctrl-C reaches every process of the server, while a request runs."""
    with server.client() as client:
        assert complete(client, PROMPTS[0], "files").status_code == 200
    processes, said = server.tree(), len(server.log.read_text(errors="replace"))
    os.killpg(server.process.pid, signal.SIGINT)
    code = server.process.wait(60)
    psutil.wait_procs(processes, timeout=30)
    assert [one for one in processes if one.is_running()] == []
    after = server.log.read_text(errors="replace")[said:]
    # vLLM itself may tell, in a traceback of its own, that its engine has ended before it.
    frames = [Path(one) for one in re.findall(r'File "([^"]+)"', after)]
    assert [one for one in frames if one.parent.name in OURS or "interv" in one.parts] == []
    assert "error[E" not in after
    assert code == 0
