"""What a KV policy is refused with before a model is made, word for word."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from interv.compile import compile_documents
from interv.errors import IntervError, IntervErrors
from interv.kv.settings import KvSettings
from interv.load import load_text
from interv.runtime import compat
from interv.runtime.compat import version
from interv.runtime.compat.lookup import Found
from interv.runtime.compat.seams import Name, Seam
from interv.runtime.config import InterventionConfig
from interv.runtime.frontend.requests import check_model, process_inputs
from interv.runtime.frontend.start import arm
from interv.runtime.kv.asked import is_compressed
from interv.runtime.kv.frontend.refuse import refuse_config
from tests.passes.small import MODEL
from tests.runtime.documents import carried, config

R1KV = "interv 1\nkv r1kv { budget = 64 }\n"
PARTS = {
    "parallel_config": {
        "decode_context_parallel_size": 1,
        "prefill_context_parallel_size": 1,
        "use_ubatching": False,
        "pipeline_parallel_size": 1,
        "tensor_parallel_size": 1,
    },
    "cache_config": {
        "cache_dtype": "auto",
        "kv_offloading_size": None,
        "kv_sharing_fast_prefill": False,
    },
    "model_config": {"use_mla": False, "is_encoder_decoder": False, "runner_type": "generate"},
    "device_config": {"device_type": "cpu"},
    "speculative_config": None,
    "kv_transfer_config": None,
}


def engine(**changed: Any) -> SimpleNamespace:
    """Make what is read of a configuration; `cache_config__cache_dtype` names one of its parts."""
    made = {
        name: dict(value) if isinstance(value, dict) else value for name, value in PARTS.items()
    }
    for name, value in changed.items():
        part, _, key = name.partition("__")
        if key:
            made[part][key] = value
        else:
            made[part] = value
    return SimpleNamespace(
        **{
            name: SimpleNamespace(**value) if isinstance(value, dict) else value
            for name, value in made.items()
        }
    )


ONE_BY_ONE: dict[str, dict[str, Any]] = {
    "speculative decoding": {"speculative_config": object()},
    "KV connectors": {"kv_transfer_config": object()},
    "KV cache offloading": {"cache_config__kv_offloading_size": 1.5},
    "decode context parallelism": {"parallel_config__decode_context_parallel_size": 2},
    "prefill context parallelism": {"parallel_config__prefill_context_parallel_size": 2},
    "pipeline parallelism": {"parallel_config__pipeline_parallel_size": 2},
    "micro-batches": {"parallel_config__use_ubatching": True},
    "a quantised KV cache": {"cache_config__cache_dtype": "fp8_e4m3"},
    "fast prefill of shared caches": {"cache_config__kv_sharing_fast_prefill": True},
    "MLA": {"model_config__use_mla": True},
    "encoder-decoder models": {"model_config__is_encoder_decoder": True},
    "pooling models": {"model_config__runner_type": "pooling"},
    "attention on xpu": {"device_config__device_type": "xpu"},
}


def test_a_vllm_that_lacks_what_a_policy_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = Found(Seam("a chunk may end early", "scheduler", "kv", ((Name("vllm.a:b"),),)), None)
    monkeypatch.setattr(version, "missing", lambda *needs: (lacking,) if "kv" in needs else ())
    monkeypatch.setattr(compat, "vllm_version", lambda: "0.99.0")
    with pytest.raises(IntervError) as caught:
        refuse_config(engine(), KvSettings())
    assert str(caught.value) == (
        "error[E570]: kv r1kv is not supported with vLLM 0.99.0, which lacks"
        " 'a chunk may end early'"
    )


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_each_feature_is_refused(name: str) -> None:
    with pytest.raises(IntervError) as caught:
        refuse_config(engine(**ONE_BY_ONE[name]), KvSettings())
    assert str(caught.value) == f"error[E570]: kv r1kv is not supported with {name}"


def test_amd_is_not_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM calls both of them so."""
    cuda = engine(device_config__device_type="cuda")
    refuse_config(cuda, KvSettings())
    monkeypatch.setattr(compat, "is_rocm", lambda: True)
    with pytest.raises(IntervError) as caught:
        refuse_config(cuda, KvSettings())
    assert str(caught.value) == "error[E570]: kv r1kv is not supported with attention on ROCm"


def test_all_of_them_are_named_at_once() -> None:
    refuse_config(engine(), KvSettings())
    wrong = engine(speculative_config=object(), device_config__device_type="tpu")
    with pytest.raises(IntervErrors) as caught:
        refuse_config(wrong, KvSettings("snapkv"))
    assert str(caught.value) == (
        "error[E570]: kv snapkv is not supported with speculative decoding\n\n"
        "error[E570]: kv snapkv is not supported with attention on tpu"
    )


def test_heads_that_vote_must_be_on_one_rank() -> None:
    ranks = engine(parallel_config__tensor_parallel_size=2)
    refuse_config(ranks, KvSettings())
    refuse_config(engine(), KvSettings(scope="per_layer"))
    with pytest.raises(IntervError) as caught:
        refuse_config(ranks, KvSettings(scope="per_layer"))
    assert str(caught.value) == (
        "error[E570]: kv r1kv is not supported with scope per_layer and tensor parallelism"
    )


def test_an_engine_is_refused_before_its_weights_are_loaded() -> None:
    compiled = compile_documents([load_text(R1KV, "kv.interv")], MODEL)
    with pytest.raises(IntervError) as caught:
        arm(engine(speculative_config=object()), compiled, {})
    assert str(caught.value) == "error[E570]: kv r1kv is not supported with speculative decoding"


TWICE = """\
error[E299]: two documents declare a KV policy: a.interv:2 and b.interv:4
 --> b.interv:4:1
  |
4 | kv snapkv { }
  | ^^^^^^^^^^^^^ declared again
 --> a.interv:2:1
  |
2 | kv r1kv { budget = 64 }
  | ^^^^^^^^^^^^^^^^^^^^^^^ declared first
  |
  = keep one of them: an engine has one cache"""


def test_an_engine_has_one_policy() -> None:
    documents = [
        load_text(R1KV, "a.interv"),
        load_text("interv 1\n\n\nkv snapkv { }\n", "b.interv"),
    ]
    with pytest.raises(IntervError) as caught:
        compile_documents(documents, MODEL)
    assert str(caught.value) == TWICE
    assert compile_documents(documents[1:], MODEL).bundle.kv == KvSettings(
        "snapkv", own=(("kernel", 7),)
    )


ASKS = """\
error[E295]: program 'thinks' says 'kv on', and no document declares a KV policy
 --> a.interv:2:21
  |
2 | program thinks { kv on }
  |                     ^^ no policy
  |
  = declare one outside of programs: kv r1kv { default = off }"""


def test_a_program_asks_for_a_policy_that_is_there() -> None:
    """It may be another document's, and a program that wants none has what it wants."""
    asking = load_text("interv 1\nprogram thinks { kv on }\nprogram terse { kv off }\n", "a.interv")
    with pytest.raises(IntervError) as caught:
        compile_documents([asking], MODEL)
    assert str(caught.value) == ASKS
    both = compile_documents([asking, load_text(R1KV, "b.interv")], MODEL)
    assert both.bundle.compressed == {"thinks": True, "terse": False}
    alone = load_text("interv 1\nprogram terse { kv off }\n")
    assert compile_documents([alone], MODEL).bundle.kv is None


def admitted(extra: dict[str, Any], armed: InterventionConfig | None, resumable: bool) -> str:
    """Return what a request with these wishes is answered, "" where it is taken in."""
    owner = SimpleNamespace(vllm_config=config(armed))
    params = SimpleNamespace(extra_args=extra)

    def original(*args: Any, **kwargs: Any) -> Any:
        return SimpleNamespace(sampling_params=SimpleNamespace(extra_args=dict(extra)))

    try:
        process_inputs(original, owner, "1", "a prompt", params, resumable=resumable)
    except type(compat.bad_request("")) as refused:
        return str(refused)
    return ""


NO_POLICY = (
    "error[E581]: this engine has no KV policy\n"
    "  = the request says 'intervention_kv': \"on\"\n"
    "  = declare one: kv r1kv { budget = 512 }"
)
PIECES = (
    "error[E582]: a prompt that is sent in pieces cannot be compressed\n"
    "  = when it is compacted follows from its length, which is not known yet\n"
    "  = send the whole prompt at once, or say 'intervention_kv': \"off\""
)


@pytest.mark.parametrize(
    ("asked", "armed", "resumable", "answer"),
    [
        ("yes", True, False, "error[E580]: 'intervention_kv' is \"on\" or \"off\", not 'yes'"),
        (True, True, False, 'error[E580]: \'intervention_kv\' is "on" or "off", not True'),
        ("yes", False, False, "error[E580]: 'intervention_kv' is \"on\" or \"off\", not 'yes'"),
        ("on", False, False, NO_POLICY),
        ("on", True, True, PIECES),
        (None, True, True, PIECES),
        ("off", True, True, ""),
        ("on", True, False, ""),
        ("off", False, False, ""),
        (None, False, True, ""),
    ],
)
def test_what_a_request_says(
    tmp_path: Path, asked: object, armed: bool, resumable: bool, answer: str
) -> None:
    extra = {} if asked is None else {"intervention_kv": asked}
    engine_config = carried(tmp_path, R1KV) if armed else None
    assert admitted(extra, engine_config, resumable) == answer


DIFFER = (
    "error[E583]: programs 'terse' and 'thinks' differ over the request's KV cache:"
    " kv off and kv on\n"
    '  = say it in the request: \'intervention_kv\': "on" or "off"'
)
TWO = R1KV + "program thinks { kv on }\nprogram terse { kv off }\nprogram plain { }\n"


@pytest.mark.parametrize(
    ("extra", "resumable", "answer"),
    [
        ({"intervention": "terse + plain + thinks*2"}, False, DIFFER),
        ({"intervention": "terse + thinks", "intervention_kv": "on"}, False, ""),
        ({"intervention": "terse + thinks*0"}, False, ""),
        ({"intervention": "off"}, True, PIECES),
        ({"intervention": "interv 1 program p { kv on }"}, True, PIECES),
        ({"intervention": "interv 1 program p { kv off }"}, True, ""),
    ],
)
def test_what_programs_say(
    tmp_path: Path, extra: dict[str, Any], resumable: bool, answer: str
) -> None:
    assert admitted(extra, carried(tmp_path, TWO, inline=True), resumable) == answer


def test_an_inline_program_asks_for_a_policy_that_is_there(tmp_path: Path) -> None:
    edits = carried(tmp_path, "interv 1\nprogram calm { }\n", inline=True)
    assert admitted({"intervention": "interv 1 program p { kv on }"}, edits, False) == (
        "error[E581]: this engine has no KV policy\n"
        "  = its program says 'kv on'\n"
        "  = declare one: kv r1kv { budget = 512 }"
    )


def test_a_document_with_edits_alone_has_no_policy(tmp_path: Path) -> None:
    edits = carried(tmp_path, "interv 1\nprogram calm { }\n")
    assert admitted({"intervention_kv": "on"}, edits, False) == NO_POLICY


async def unreached(serving: Any, asked: Any) -> str:
    raise AssertionError("the request was taken in")


def test_a_wrong_wish_over_http_is_answered_before_it_is_queued() -> None:
    client = SimpleNamespace(input_processor=SimpleNamespace(), vllm_config=config())
    asked = SimpleNamespace(vllm_xargs={"intervention_kv": "on"}, use_beam_search=False)
    running = check_model(unreached, SimpleNamespace(engine_client=client), asked)
    with pytest.raises(type(compat.bad_request(""))) as caught:
        running.send(None)
    assert str(caught.value) == NO_POLICY


@pytest.mark.parametrize(
    ("default", "asked", "on"),
    [(True, None, True), (True, "off", False), (False, None, False), (False, "on", True)],
)
def test_a_request_may_differ_from_the_default(default: bool, asked: str | None, on: bool) -> None:
    extra = None if asked is None else {"intervention_kv": asked}
    params = SimpleNamespace(extra_args=extra)
    assert is_compressed(params, KvSettings(default=default)) is on
    assert not is_compressed(None, KvSettings())
