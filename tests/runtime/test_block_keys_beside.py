"""Keys of edits beside those that vLLM has of its own, and in the events of the cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vllm.lora.request import LoRARequest
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange

from interv.runtime.scheduler.block_keys import TAG
from tests.runtime.prefixes import Core, core, event_keys, keyed_hashing, keys_of, shared

PROMPT = tuple(range(10, 30))  # five blocks
ANSWER = tuple(range(40, 50))  # with it, seven and a half
AT_FIVE = "steer v at post_block[1] when prompt[5]"
TWICE = f"{AT_FIVE} or generated[0]"


@pytest.fixture(autouse=True, scope="module")
def _hashing() -> Iterator[None]:
    with keyed_hashing():
        yield


def answer(engine: Core, asked: str | None, **fields: Any) -> list[bytes]:
    return engine.hashes(asked, PROMPT, ANSWER, **fields)


IMAGE = MultiModalFeatureSpec(None, "image", "a picture", PlaceholderRange(offset=6, length=4))
THEIRS = {
    "salt": {"cache_salt": "tenant"},
    "adapter": {"lora_request": LoRARequest("style", 1, "/adapters/style")},
    "image": {"mm_features": [IMAGE]},
}
THEIRS["all of them"] = {name: one for fields in THEIRS.values() for name, one in fields.items()}


@pytest.mark.parametrize("fields", THEIRS.values(), ids=THEIRS)
def test_keys_of_adapters_images_and_salts_stay_as_they_are(
    folder: Path, fields: dict[str, Any]
) -> None:
    engine, plain = core(folder, TWICE), Core(None)
    theirs = keys_of(plain.request(None, PROMPT, ANSWER, **fields))
    assert any(theirs)
    assert answer(engine, "off", **fields) == answer(plain, None, **fields) != answer(plain, None)
    off = engine.request("off", PROMPT, ANSWER, **fields)
    assert event_keys(off) == event_keys(plain.request(None, PROMPT, ANSWER, **fields))
    ours = keys_of(engine.request("p", PROMPT, ANSWER))
    assert [i for i, one in enumerate(ours) if one] == [1, 5]
    both = keys_of(engine.request("p", PROMPT, ANSWER, **fields))
    assert both == [((*(a or ()), *(b or ())) or None) for a, b in zip(theirs, ours, strict=True)]
    made = answer(engine, "p", **fields)
    assert shared(made, answer(plain, None, **fields)) == 1
    first = next(i for i, one in enumerate(theirs) if one)
    assert shared(made, answer(engine, "p")) == first


def test_an_event_of_an_edited_block_carries_the_digest(folder: Path) -> None:
    engine = core(folder, AT_FIVE)
    request = engine.request("p", PROMPT, cache_salt="tenant")
    salt, edited, *rest = keys_of(request)
    assert (salt, rest) == ((("cache_salt", "tenant"),), [None] * 3)
    assert edited is not None
    ((tag, digest),) = edited
    assert tag == TAG
    assert len(bytes.fromhex(digest)) == 32
    assert event_keys(request) == [("tenant",), (digest,), None, None, None]


def test_an_engine_without_a_prefix_cache_has_no_keys(folder: Path) -> None:
    engine = core(folder, AT_FIVE)
    engine.request_block_hasher = None
    request = engine.request("p", PROMPT, ANSWER)
    assert request.block_hashes == []
    assert keys_of(request) == [None] * 7
    assert not hasattr(engine, "interv")
