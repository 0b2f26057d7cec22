"""A server that is killed in the middle leaves complete files, and a manifest that says so."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from interv.captures import load_captures
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


def killed_after(files: int, model: Path, folder: Path, layout: str) -> None:
    """Start many captures and kill the engine once some of their files are there."""
    (folder / "keep.interv").write_text(DOCUMENT.format(layout=layout))
    asks = [Ask([3 + (7 * i + j) % 500 for j in range(20)], None, TOKENS) for i in range(REQUESTS)]
    engine = EngineHost("traced", model, files=[folder / "keep.interv"], max_num_seqs=16)

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


@pytest.mark.parametrize(("layout", "files"), [("packed", 40), ("sharded", 1)])
def test_a_killed_engine_leaves_complete_records(tmp_path: Path, layout: str, files: int) -> None:
    killed_after(files, tiny_model("llama"), tmp_path, layout)
    found = load_captures(tmp_path / "acts")
    requests = set(found.request)
    assert files <= len(requests) < REQUESTS
    # Of every request that is there all rows are: 20 of the prompt, and all generated but one.
    assert len(found) == len(requests) * LAYERS * (20 + TOKENS - 1)
    assert not found.rows.isnan().any()
    assert any("did not close" in one or "not closed" in one for one in found.incomplete)
