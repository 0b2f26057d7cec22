"""What is said of a KV policy: the explain, and the metrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from interv.compile import compile_documents
from interv.explain import explain, explain_spec
from interv.kv.settings import settings_of
from interv.load import load_document, load_text
from interv.model import ModelFacts, facts_from_config
from interv.runtime.config import counters_path
from interv.runtime.frontend.metrics import Collector
from interv.runtime.kv.frontend.metrics import tally_files
from interv.runtime.kv.tally import Tally, tally_path
from interv.sinks.owner import Hold
from tests.passes.small import MODEL
from tests.runtime.documents import carried

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
}
FULL = """\
  kv r1kv  budget 128, buffer 64, window 8, per head                                     kv.interv:2
    lambda 0.1, kernel 7, threshold 0.5
    a decoding request holds at most 192 tokens, 4.42 MB of keys and values (bf16)
    a longer prompt is held whole until it is done, then cut to the budget
    a request of 8192 tokens would hold 188.74 MB without it: 42.7 × as many fit
    kv r1kv: buffer = 64 is small, answers suffer below 128: tokens are dropped before later ones
    could have asked for them"""
ASKED = """\
  kv streaming  budget 512, buffer 128, window 8, per layer                              kv.interv:2
    sinks 4
    for requests that ask for it, or whose programs do, and no others
    a decoding request holds at most 640 tokens
    prompts are compressed while they are read"""


@pytest.mark.parametrize(
    ("text", "model", "expected"),
    [
        ("r1kv { budget = 128 buffer = 64 }", facts_from_config(CONFIG, "a model"), FULL),
        ("streaming { scope = per_layer prefill = on default = off }", MODEL, ASKED),
    ],
)
def test_the_explain_says_what_is_bounded(text: str, model: ModelFacts, expected: str) -> None:
    compiled = compile_documents([load_text(f"interv 1\nkv {text}\n", "kv.interv")], model)
    found = explain(compiled)
    assert expected in found
    assert max(map(len, found.splitlines())) <= 100


def test_yaml_has_switches_of_its_own(tmp_path: Path) -> None:
    """It reads a bare `on` as true."""
    path = tmp_path / "a.yaml"
    path.write_text(
        "interv: 1\nkv: {policy: r1kv, options: [[default, off], [prefill, on]]}\n"
        "programs:\n- {name: thinks, kv: on}\n- {name: terse, kv: off}\n"
    )
    document = load_document(path)
    made = settings_of(document)
    assert made is not None
    assert (made.default, made.prefill) == (False, True)
    assert [one.kv for one in document.spec.programs] == [True, False]
    assert "  program terse  conflict sequential  kv off  " in explain_spec([document])


def test_a_document_without_a_policy_has_no_settings() -> None:
    assert settings_of(load_text("interv 1\n")) is None


@pytest.fixture
def counters() -> Iterator[str]:
    path = counters_path()
    yield path
    for file in tally_files(path):
        Path(file).unlink()


TEXT = """\
# HELP interv_kv_compactions_total Compactions of requests' KV caches.
# TYPE interv_kv_compactions_total counter
interv_kv_compactions_total 3.0
# HELP interv_kv_dropped_tokens_total Tokens dropped from KV caches.
# TYPE interv_kv_dropped_tokens_total counter
interv_kv_dropped_tokens_total 240.0
# HELP interv_kv_freed_blocks_total Blocks that compactions gave back to the pool.
# TYPE interv_kv_freed_blocks_total counter
interv_kv_freed_blocks_total 8.0
# HELP interv_kv_freed_bytes_total Bytes of those blocks, on one rank.
# TYPE interv_kv_freed_bytes_total counter
interv_kv_freed_bytes_total 8192.0
"""


def test_the_ranks_of_an_engine_add_up(tmp_path: Path, counters: str) -> None:
    first, second = (Tally(Path(tally_path(counters, rank)), 1024) for rank in (0, 1))
    first.compaction(dropped=64, freed=2)
    first.compaction(dropped=112, freed=4)
    second.compaction(dropped=64, freed=2)
    registry = CollectorRegistry()
    armed = carried(tmp_path, "interv 1\nkv r1kv { budget = 64 }\n", counters=counters)
    registry.register(Collector(armed))
    said = generate_latest(registry).decode()
    assert said[said.index("# HELP interv_kv_") :] == TEXT
    # What holds the engine's files takes these with them.
    hold = Hold(Path(counters).parent, armed.engine)
    hold.release()
    assert not Path(tally_path(counters, 0)).exists()


def test_an_engine_without_a_policy_says_nothing_of_it(tmp_path: Path, counters: str) -> None:
    registry = CollectorRegistry()
    text = "interv 1\nprogram calm { }\n"
    registry.register(Collector(carried(tmp_path, text, counters=counters)))
    assert "interv_kv" not in generate_latest(registry).decode()
