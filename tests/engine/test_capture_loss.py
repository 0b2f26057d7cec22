"""A server that is killed in the middle leaves complete files, and a manifest that says so."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from interv.captures import load_captures
from interv.sinks.owner import shared_place, sweep, temporary
from interv.sinks.rescue import rescue
from tests.engine.answer import Ask
from tests.engine.host import EngineError, EngineHost
from tests.engine.models import LAYERS, tiny_model

pytestmark = pytest.mark.engine

DOCUMENT = """interv 1
sink acts = filesystem("acts/", layout = {layout}, shard_mib = 1)
program keep {{ capture at post_block[*] to acts }}
default keep
"""
REQUESTS, TOKENS, PATIENCE_S = 200, 4, 120


def killed_after(files: int, model: Path, folder: Path, layout: str) -> str:
    """Start many captures, kill the engine once some of their files are there, return its name."""
    (folder / "keep.interv").write_text(DOCUMENT.format(layout=layout))
    asks = [Ask([3 + (7 * i + j) % 500 for j in range(20)], None, TOKENS) for i in range(REQUESTS)]
    engine = EngineHost("traced", model, files=[folder / "keep.interv"], max_num_seqs=16)
    name: str = engine.call("facts")["engine"]

    def run() -> None:
        with pytest.raises(EngineError):
            engine.call("capture_results", asks)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while len(list((folder / "acts").glob("*.safetensors"))) < files:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    engine.kill()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    return name


@pytest.mark.parametrize(("layout", "files"), [("packed", 40), ("sharded", 1)])
def test_a_killed_engine_leaves_complete_records(tmp_path: Path, layout: str, files: int) -> None:
    engine = killed_after(files, tiny_model("llama"), tmp_path, layout)
    before = set(whole(tmp_path / "acts"))
    assert files <= len(before) < REQUESTS
    # What the next engine does when it starts: it stores what waited, each once, and sweeps.
    waiting = len(list(shared_place().glob(f"{engine}.captures/journal-*/*.safetensors")))
    for place in (shared_place(), temporary()):
        sweep(place, rescue)
        assert list(place.glob(f"{engine}*")) == []
    after = whole(tmp_path / "acts")
    assert len(after) == len(set(after)) <= len(before) + waiting
    assert set(after) >= before
    if layout == "sharded":
        assert len(after) > len(before)


def whole(folder: Path) -> list[str]:
    """Return the requests of a folder, once all of their rows are known to be there."""
    found = load_captures(folder)
    requests = [one.request for one in found.records]
    # Of every request that is there all rows are: 20 of the prompt, and all generated but one.
    assert len(found) == len(requests) * LAYERS * (20 + TOKENS - 1)
    assert not found.rows.isnan().any()
    assert any("did not close" in one or "not closed" in one for one in found.incomplete)
    return requests
