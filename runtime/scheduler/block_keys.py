"""What an edit does to the prefix cache: a key for each block whose keys and values it changes.

The key of a block is the digest of the edits that are made to its own tokens and that some later
attention sees. vLLM chains the hashes of blocks, so what was done to the tokens before a block is
in its hash already. Content decides, not names: two programs that do the same to a block's tokens,
with the same vectors, share it. Of an edit that decays, how many generated tokens come before a
token is part of what is done to it: the chain knows positions, but not where a prompt ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from interv.codegen.bundle import Bundle
from interv.codegen.emit import FORMAT
from interv.codegen.slot import SlotRows, linear
from interv.document.markers import following
from interv.document.spec import Selector
from interv.passes.graph.along import Along, Walk
from interv.passes.graph.column import Kind, Mode
from interv.passes.graph.selector_masks import Tokens, generated_index, select
from interv.passes.placing.plan import GATES
from interv.runtime.choice import Choice, choice_of
from interv.runtime.config import InterventionConfig
from interv.runtime.scheduler.cached_prefix import note_first
from interv.runtime.slot_contents import Composer

# What the key is called among the extra keys of a block.
TAG = "interv"
_REMEMBERED = 1024


class BlockKeys(Protocol):
    """The keys of one request's blocks."""

    def key(self, request: Any, start: int, end: int) -> str | None:
        """Return the key of the block of the request's tokens from `start` to before `end`.

        None where no edit changes its keys and values.
        """


class PrefixKeys:
    """The keys of one engine's requests."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.default = Choice.default_of(bundle)
        self._composer = Composer(bundle)
        depth = bundle.num_layers
        self._reaching = [i for i, t in enumerate(bundle.sites) if t.site.reaches_cache(depth)]
        self._rows = [
            [hashlib.sha256(row.astype("<f4").tobytes()).digest() for row in table.bank]
            for table in bundle.sites
        ]
        self._maps = [[one.digest for one in table.maps] for table in bundle.sites]
        self._known: dict[str, _Edits] = {}

    def of(self, request: Any) -> BlockKeys | None:
        """Return the keys of a request's blocks, None where no edit of it reaches one."""
        choice = choice_of(request, self.default)
        if not choice.key:
            return None
        edits = self._known.get(choice.key)
        if edits is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            edits = self._known[choice.key] = self._edits(choice)
        return _Edited(edits) if edits.selectors else None

    def _edits(self, choice: Choice) -> _Edits:
        """Return a choice's edits that reach keys and values, at bits of its own numbering."""
        named = self.bundle.selectors if choice.inline is None else choice.inline.selectors
        rows = self._composer.rows(choice, list(named).index)
        used = 0
        for site in self._reaching:
            for column in rows.columns[site, : rows.count[site]]:
                if column["kind"] != Kind.GATE:
                    used |= int(column["bit"]) & (2**64 - 1)
        selectors = {bit: one for bit, one in enumerate(named) if used >> bit & 1}
        sites = {i: str(self.bundle.sites[i].site) for i in self._reaching}
        return _Edits(rows, selectors, sites, self._rows, self._maps)


class _Edited:
    """The keys of a request with edits.

    All tokens that there are yet are looked at together: a look costs as much for one block.
    """

    def __init__(self, edits: _Edits) -> None:
        self._edits = edits
        self._walk = Walk(edits.followed) if edits.followed else None
        self._start, self._done = 0, np.zeros((0, 2), dtype=np.int64)

    def key(self, request: Any, start: int, end: int) -> str | None:
        if start < self._start or end > self._start + len(self._done):
            known = request.all_token_ids
            along = None if self._walk is None else self._walk.along(known, start)
            self._start = start
            self._done = self._edits.done(start, request.num_prompt_tokens, known[start:], along)
        return self._edits.key(self._done[start - self._start : end - self._start])


class _Edits:
    """The edits of one choice that reach keys and values."""

    def __init__(
        self,
        rows: SlotRows,
        selectors: dict[int, Selector],
        sites: dict[int, str],
        directions: list[list[bytes]],
        maps: list[list[str]],
    ) -> None:
        self.selectors = selectors
        found = (leaf for one in selectors.values() for leaf in following(one))
        self.followed = tuple(dict.fromkeys(found))
        self._rows, self._sites, self._directions = rows, sites, directions
        self._maps = maps
        self._decays: dict[int, npt.NDArray[np.bool_]] = {}  # by site, of each column
        self._fading = self._decaying()
        self._digests: dict[tuple[int, int], bytes] = {}  # b"" for tokens without an edit
        self._keys: dict[bytes, str] = {}  # "" for blocks without an edit

    def key(self, done: npt.NDArray[np.int64]) -> str | None:
        """Return the key of a block of tokens, `[T, 2]` as `done` says of them."""
        block = done.tobytes()
        key = self._keys.get(block)
        if key is None:
            if len(self._keys) >= _REMEMBERED:
                self._keys.clear()
            key = self._keys[block] = self._key(done)
        return key or None

    def _key(self, done: npt.NDArray[np.int64]) -> str:
        digests = [self._digest(*one) for one in done.tolist()]
        if not any(digests):
            return ""
        whole = hashlib.sha256(b"%d" % FORMAT)
        for one in digests:
            whole.update(one or bytes(32))
        return whole.hexdigest()

    def done(
        self, start: int, prompt_length: int, ids: Sequence[int], along: Along | None
    ) -> npt.NDArray[np.int64]:
        """Return what is done to each of the tokens `ids`, the first at `start`: `[T, 2]`.

        The selectors that hold, and, where one of them is that of an edit that decays, how many
        generated tokens come before. `along` knows what came before the first, where a selector
        follows it.
        """
        fed = Tokens(
            torch.arange(start, start + len(ids)),
            torch.tensor(prompt_length),
            torch.tensor(ids, dtype=torch.int64),
            along,
        )
        bits = np.zeros(len(ids), dtype=np.int64)
        for bit, selector in self.selectors.items():
            bits |= select(fed, selector).expand(len(ids)).numpy().astype(np.int64) << bit
        index = generated_index(fed).numpy()
        return np.stack((bits, np.where((bits & self._fading) != 0, index, 0)), axis=1)

    def _decaying(self) -> int:
        """Return the selectors of edits that decay, as a set of bits."""
        found, stored = 0, set()
        for site in self._sites:
            columns = self._rows.columns[site, : self._rows.count[site]]
            fading = (columns["mode"] & Mode.DECAY) != 0
            for j, one in enumerate(columns):
                gate = int(one["gate"])
                here = 0 <= gate < GATES and fading[gate]
                fading[j] |= here or (gate >= GATES and gate - GATES in stored)
                if one["kind"] != Kind.GATE:
                    found |= int(one["bit"]) if fading[j] else 0
                elif fading[j]:
                    stored.add(int(one["store"]))
            self._decays[site] = fading
        return found

    def _digest(self, bits: int, index: int) -> bytes:
        """Return the digest of what is done to a token for which these selectors hold."""
        found = self._digests.get((bits, index))
        if found is None:
            if len(self._digests) >= _REMEMBERED:
                self._digests.clear()
            found = self._digests[bits, index] = self._contents(bits, index)
        return found

    def _contents(self, bits: int, index: int) -> bytes:
        whole, some = hashlib.sha256(), False
        kept: dict[int, bytes] = {}  # what weighs edits of later sites, by its place
        for site, name in self._sites.items():
            columns = self._rows.columns[site, : self._rows.count[site]]
            on = ((columns["bit"] & bits) != 0) & ((columns["unless"] & bits) == 0)
            is_gate = columns["kind"] == Kind.GATE
            edits = np.flatnonzero(on & ~is_gate).tolist()
            for one in columns[is_gate & (columns["store"] >= 0)]:
                kept[int(one["store"])] = self._weight(site, one, edits)
            if not edits:
                continue
            some = True
            # By its name: places in the bundle are numbered over all that it edits.
            whole.update(f"{name}:{len(edits)};".encode())
            if self._decays[site][edits].any():
                whole.update(b"%d;" % index)
            for one in columns[edits]:
                gate = int(one["gate"])
                own = self._weight(site, columns[gate], edits) if 0 <= gate < GATES else b""
                weight = kept[gate - GATES] if gate >= GATES else own
                whole.update(self._column(site, one, edits) + weight)
        return whole.digest() if some else b""

    def _weight(self, site: int, gate: Any, edits: list[int]) -> bytes:
        """Return what a weight follows from: where it is read, with what, and behind what."""
        own = int(gate["gate"])
        fading = self._column(site, self._rows.columns[site, own], edits) if own >= 0 else b""
        return self._sites[site].encode() + self._column(site, gate, edits) + fading

    def _column(self, site: int, column: Any, edits: list[int]) -> bytes:
        """Return a column's content; what it sees is numbered among the edits of the token."""
        sees = int(column["sees"])
        seen = bytes(sees >> i & 1 for i in edits)
        rows = (column["a"], column["b"])
        directions = [self._directions[site][row] if row >= 0 else b"-" for row in rows]
        scalars = [column[name] for name in ("alpha", "beta", "strength", "low", "high")]
        # Adding 0 makes one zero of the two, which a negative multiplier may have told apart.
        numbers = (np.array(scalars, "<f4") + np.float32(0)).tobytes()
        full = self._maps[site][column["store"]] if linear(column) else ""
        # How far a multiplier may have gone does not matter behind it.
        mode = int(column["mode"]) & ~Mode.OVER
        rest = f"{column['kind']},{column['block']},{mode},{full};".encode()
        return b"".join([*directions, numbers, seen, rest])


def keys_of_block(
    original: Any, request: Any, start: int, end: int, *args: Any, **kwargs: Any
) -> list[Any]:
    """Add the key of an edited block; wraps `kv_cache_utils._gen_prompt_embeds_extra_hash_keys`.

    That is the last of the functions that make up the extra keys of a block, and the one that
    knows which tokens the block has.
    """
    found: list[Any] = original(request, start, end, *args, **kwargs)
    keys: BlockKeys | None = getattr(request, "interv", None)
    if keys is None:
        return found
    key = keys.key(request, start, end)
    return found if key is None else [*found, (TAG, key)]


def preprocess_add_request(
    original: Any, self: Any, request: Any, *args: Any, **kwargs: Any
) -> Any:
    """Have an engine's requests know their keys; wraps `EngineCore.preprocess_add_request`."""
    carried = self.vllm_config.additional_config
    hasher = self.request_block_hasher
    armed = isinstance(carried, InterventionConfig) and hasher is not None
    if armed and not hasattr(self, "interv"):
        self.interv = PrefixKeys(carried.bundle)
        self.request_block_hasher = _knowing(hasher, self.interv)
    return original(self, request, *args, **kwargs)


def _knowing(hasher: Any, keys: PrefixKeys) -> Any:
    def hash_blocks(request: Any) -> Any:
        # The first call is from the request's own constructor. What a request chose is read once:
        # this is called for every token that it generates.
        if not hasattr(request, "interv"):
            request.interv = keys.of(request)
            note_first(request, keys.bundle, choice_of(request, keys.default))
        return hasher(request)

    return hash_blocks
