"""Requests as the core of an engine makes them, and the hashes of their blocks."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from vllm import SamplingParams
from vllm.utils.hashing import sha256

from interv.runtime.choice import RESOLVED
from interv.runtime.config import InterventionConfig
from interv.runtime.frontend.admission import Admission
from interv.runtime.scheduler.block_keys import keys_of_block, preprocess_add_request
from tests.runtime.documents import carried, config

# vLLM's core loads parts of PyTorch that PyTorch itself calls deprecated.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from vllm.v1.core import kv_cache_utils
    from vllm.v1.engine import EngineCoreRequest
    from vllm.v1.request import Request

BLOCK = 4
HEADER = "interv 1\n" + "".join(
    f'vector {name} = "{name}.safetensors"\n' for name in ("v", "w", "same", "longer", "one")
)


@contextmanager
def keyed_hashing() -> Iterator[None]:
    """Have vLLM's own functions make hashes as they do where the plugin is installed."""
    with pytest.MonkeyPatch.context() as patch:
        # Both are set for good otherwise, for every other test of this process.
        patch.setattr(kv_cache_utils, "NONE_HASH", b"", raising=False)
        patch.setattr(kv_cache_utils, "_NONE_HASH_SEED", None)
        kv_cache_utils.init_none_hash(sha256)
        original = kv_cache_utils._gen_prompt_embeds_extra_hash_keys
        name = "_gen_prompt_embeds_extra_hash_keys"
        patch.setattr(kv_cache_utils, name, lambda *block: keys_of_block(original, *block))
        yield


class Core:
    """The part of an engine's core that takes requests in; stock where nothing is carried."""

    def __init__(self, additional: InterventionConfig | None) -> None:
        self.vllm_config = config(additional)
        self.request_block_hasher = kv_cache_utils.get_request_block_hasher(BLOCK, sha256)
        self._admission = additional and Admission(additional, self.vllm_config)
        self._numbers = itertools.count()

    def request(
        self,
        asked: str | Mapping[str, Any] | None,
        prompt: Sequence[int],
        generated: Sequence[int] = (),
        **fields: Any,
    ) -> Request:
        """Return a request that asked so and has generated so many tokens."""
        said = {} if asked is None else {"intervention": asked}
        if self._admission is not None:
            said[RESOLVED] = self._admission.resolve(said).plain()
        given: dict[str, Any] = {"mm_features": None, "lora_request": None, "cache_salt": None}
        made = EngineCoreRequest(
            request_id=str(next(self._numbers)),
            prompt_token_ids=list(prompt),
            sampling_params=SamplingParams(extra_args=said),
            pooling_params=None,
            arrival_time=0.0,
            data_parallel_rank=None,
            **given | fields,
        )
        added: Request
        added, _ = preprocess_add_request(_take_in, self, made)
        for one in generated:
            added.append_output_token_ids(one)
        return added

    def hashes(self, *args: Any, **fields: Any) -> list[bytes]:
        """Return the hash of every full block of a request."""
        return list(self.request(*args, **fields).block_hashes)


def _take_in(self: Core, request: EngineCoreRequest) -> tuple[Request, int]:
    """Do what `EngineCore.preprocess_add_request` does with a request of text only."""
    return Request.from_engine_core_request(request, self.request_block_hasher), 0


def core(folder: Path, *programs: str, rest: str = "", inline: bool = False) -> Core:
    """Return the core of an engine with programs p, q, r, … of one line or more each."""
    text = HEADER + "".join(
        f"program {name} {{\n{body}\n}}\n" for name, body in zip("pqrs", programs, strict=False)
    )
    return Core(carried(folder, text + rest, inline=inline))


def shared(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    """Return how many blocks two requests share."""
    pairs = zip(one, other, strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def keys_of(request: Request) -> list[tuple[Any, ...] | None]:
    """Return the extra keys of each full block of a request."""
    found, index = [], 0
    for start in range(0, request.num_tokens - BLOCK + 1, BLOCK):
        keys, index = kv_cache_utils.generate_block_hash_extra_keys(
            request, start, start + BLOCK, index
        )
        found.append(keys)
    return found


def event_keys(request: Request) -> list[tuple[Any, ...] | None] | None:
    """Return the same keys as an event of the cache carries them."""
    found: list[tuple[Any, ...] | None] | None = kv_cache_utils.to_event_extra_keys(
        keys_of(request)
    )
    return found
