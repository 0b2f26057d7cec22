"""An offline script that ends, is interrupted or is terminated has stored what it captured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from interv.captures import load_captures
from interv.sinks.owner import shared_place, temporary
from interv.sinks.schema import MANIFEST
from tests.engine.models import tiny_model

pytestmark = pytest.mark.engine

DOCUMENT = """interv 1
sink rows   = memory()
sink shards = filesystem("shards/", layout = sharded, shard_s = 3600)
program both { capture at post_block[1] to rows  capture at post_block[*] to shards }
default both
"""
# As users write it, with the engine in processes of its own; the shard waits for more records.
SCRIPT = """
import sys
from vllm import LLM, SamplingParams
import interv
if __name__ == "__main__":
    llm = LLM(sys.argv[1], skip_tokenizer_init=True, dtype="float32", max_model_len=128,
              gpu_memory_utilization=0.3, **interv.engine_args(sys.argv[2]))
    params = SamplingParams(max_tokens=4, detokenize=False)
    outputs = llm.generate([{"prompt_token_ids": [5, 6, 7 + i]} for i in range(3)], params)
    engine = llm.llm_engine.vllm_config.additional_config.engine
    print("ready", engine, len(outputs), flush=True)
    sys.stdin.read()
"""
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_CI_ENV": "1", "VLLM_NO_USAGE_STATS": "1"}
CODES = {"end": 0, "SIGTERM": 128 + signal.SIGTERM, "SIGINT": -signal.SIGINT}
SLOW = pytest.mark.slow
# The 15 seconds that an engine gets, and what vLLM needs around it.
STOP_S = 60


@pytest.mark.parametrize(
    "how", ["SIGTERM", pytest.param("end", marks=SLOW), pytest.param("SIGINT", marks=SLOW)]
)
def test_the_end_of_a_script_stores_all(tmp_path: Path, how: str) -> None:
    document, script = tmp_path / "both.interv", tmp_path / "script.py"
    document.write_text(DOCUMENT)
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tiny_model("llama")), str(document)]
    pipe, log = subprocess.PIPE, tmp_path / "script.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=errors, env=os.environ | ENVIRONMENT
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        said = next((one for one in process.stdout if one.startswith(b"ready ")), b"")
        assert said, log.read_text(errors="replace")[-4000:]
        if how == "end":
            process.stdin.close()
        else:
            process.send_signal(getattr(signal, how))
        printed, code = process.stdout.read(), process.wait(STOP_S)
    _, engine, count = said.decode().split()
    assert (code, count) == (CODES[how], "3")
    assert "ERROR" not in log.read_text(errors="replace") + printed.decode(errors="replace")
    events = [json.loads(line) for line in (tmp_path / "shards" / MANIFEST).open()]
    assert [one["event"] for one in events] == ["opened", "file", "closed"]
    found = load_captures(tmp_path / "shards")
    assert (len(found.records), found.incomplete) == (3, ())
    places = {shared_place(), temporary()}
    assert [one for place in places for one in place.glob(f"{engine}*")] == []
