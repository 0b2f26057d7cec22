"""`LLM` with a tokenizer: stop strings, chats and beams, and fields that are none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

import interv
from tests.engine.host import EngineHost
from tests.engine.models import HIDDEN_SIZE, VOCABULARY, tiny_model
from tests.engine.programs import Directions
from tests.engine.test_routes import BOTH, DOCUMENT

pytestmark = pytest.mark.engine


TOKENS = 6
TALK = [{"role": "user", "content": "w3 w14 w15"}]


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineHost]:
    folder = tmp_path_factory.mktemp("offline")
    Directions.random(HIDDEN_SIZE, norm=20.0).save(folder)
    (document := folder / "joy.interv").write_text(DOCUMENT.replace("[15]", "[1]"))
    model = shutil.copytree(tiny_model("llama"), folder / "model")
    save_words(model)
    with EngineHost("traced", model, files=[document], skip_tokenizer_init=False) as engine:
        yield engine


def save_words(model: Path) -> None:
    """Give a model a tokenizer whose tokens are w0, w1, and so on."""
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", eos_token="w2")
    made.chat_template = "{% for one in messages %}{{ one['content'] }}{% endfor %}"
    made.save_pretrained(model)


def say(engine: EngineHost, method: str, prompts: list[Any], **sampling: Any) -> Any:
    greedy = {"temperature": 0, "max_tokens": TOKENS, "ignore_eos": True}
    return engine.call("say", method, prompts, greedy | sampling)


def test_a_grammar_chooses_among_words_as_the_edit_leaves_them(offline: EngineHost) -> None:
    from vllm.sampling_params import StructuredOutputsParams

    words, found = range(40, 140), {}
    grammar = StructuredOutputsParams(choice=[f"w{one}" for one in words])
    prompts = [f"w{one} w14 w15" for one in range(20, 28)]
    for program in ("off", "joy"):
        more = {"extra_args": {"intervention": program}, "max_tokens": 1}
        said = say(offline, "generate", prompts, structured_outputs=grammar, **more)
        masked = say(offline, "generate", prompts, allowed_token_ids=[*words], **more)
        found[program] = [one["choices"][0]["text"] for one in said]
        assert found[program] == [one["choices"][0]["text"] for one in masked]
    assert found["off"] != found["joy"]


def test_stop_strings_offline(offline: EngineHost) -> None:
    prompts, both = ["w3 w14 w15 w92", "w27 w18"], {"extra_args": BOTH}
    for n in (1, 3):
        more = {
            "n": n,
            "temperature": float(n > 1),
            "seed": 4,
            "max_tokens": 60,
            "stop": ["w1", "w2"],
        }
        answers = say(offline, "generate", prompts, **more, **both)
        for answer in answers:
            records = interv.captured(answer)
            assert [one.sample for one in records] == list(range(n))
            assert {one.ended for one in records} == {"finished"}
            rows = interv.edited_rows(answer)
            each = rows if isinstance(rows, list) else [rows]
            fed = [sum(len(part.position) for part in one.parts) for one in records]
            assert each == [{"joy": {"post_block[1]": one}} for one in fed]
        ends = {one["finish_reason"] for answer in answers for one in answer["choices"]}
        assert "stop" in ends
    # Those who ask for nothing are not held.
    plain = {"extra_args": {"intervention": "off"}, "stop": ["w1", "w2"], "max_tokens": 60}
    assert say(offline, "generate", prompts, **plain)[0]["kv_transfer_params"] is None


def test_chat_offline(offline: EngineHost) -> None:
    off, joy = (
        say(offline, "chat", TALK, extra_args={"intervention": one})[0] for one in ("off", "joy*2")
    )
    assert off["choices"] != joy["choices"]
    (quiet,) = say(offline, "chat", TALK)
    assert len(interv.captured(quiet)) == 1


@pytest.mark.parametrize(
    ("extra", "path"),
    [
        ({"interventon": "joy"}, "extra_args.interventon"),
        ({"vllm_xargs": {"intervention": "joy"}}, "extra_args.vllm_xargs.intervention"),
        ({"extra_args": {"intervention": "joy"}}, "extra_args.extra_args.intervention"),
    ],
)
def test_a_misspelt_or_misplaced_field_offline(
    offline: EngineHost, extra: dict[str, Any], path: str
) -> None:
    assert say(offline, "generate", ["w3"], extra_args=extra) == (
        f"VLLMValidationError: error[E511]: a request has no field '{path}'\n"
        "  = fields here: extra_args.intervention, extra_args.intervention_report,"
        " extra_args.intervention_tag, extra_args.intervention_kv\n"
        "  = did you mean 'extra_args.intervention'?"
    )


def test_beams_offline(offline: EngineHost) -> None:
    beams = {"beam_width": 2, "max_tokens": 2}
    refused = offline.call("say", "beam_search", [{"prompt": "w3"}], beams)
    assert refused.startswith("VLLMValidationError: error[E515]: beam search cannot have")


@pytest.mark.slow
def test_an_embedding_has_the_default_program_and_no_other(tmp_path: Path) -> None:
    Directions.random(HIDDEN_SIZE, norm=20.0).save(tmp_path)
    (document := tmp_path / "joy.interv").write_text(
        'interv 1\nvector v = "v.safetensors"\n'
        "program joy { steer v at post_block[1] }\ndefault joy\n"
    )
    save_words(model := shutil.copytree(tiny_model("llama"), tmp_path / "model"))
    prompts = [{"prompt_token_ids": [3, 4, 5]}]
    pooling = {"runner": "pooling", "convert": "embed", "skip_tokenizer_init": False}
    with EngineHost("traced", model, **pooling) as stock:
        plain = stock.call("say", "embed", prompts, {})
    with EngineHost("traced", model, files=[document], **pooling) as engine:
        edited = engine.call("say", "embed", prompts, {})
        own = {"extra_kwargs": {"intervention": "off"}}
        refused = engine.call("say", "embed", prompts, own)
    assert abs(np.array(plain) - np.array(edited)).max() > 0.01
    assert refused == (
        "VLLMValidationError: error[E513]: a request that generates nothing has no program of its"
        " own\n  = it gets the default program, or no edit where there is none\n"
        "  = leave 'intervention' and its like out of the request"
    )
