"""The scheduler's side of clean blocks: what an edit wrote is blanked before another one uses it.

Attention reads whole blocks, past the end of a sequence: what lies there is weighed by nought, and
nought times infinity is not a number. A block that a request with an edit has written is therefore
set to zeros when it is given out anew; as a cached prefix it is read as it is. Blocks of requests
without an edit cost nothing.

vLLM has the machinery, for models whose caches need it: new blocks are noted, sent with the step,
and blanked by the worker before it writes. Here it is switched on and told of fewer blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from interv.runtime import compat
from interv.runtime.choice import KNOWN
from interv.runtime.config import InterventionConfig

_CLEANS = "interv_cleans"


class Written:
    """The blocks that requests with an edit have written and that nobody has blanked since."""

    def __init__(self) -> None:
        self._edited: set[int] = set()
        self._given: dict[int, bool] = {}  # in this step: by block, whether its request edits

    def give(self, blocks: Iterable[int], edits: bool) -> None:
        """Note blocks that a request has been given to write."""
        self._given |= dict.fromkeys(blocks, edits)

    def take(self, new: Iterable[int]) -> list[int]:
        """Return which of a step's new blocks are to be blanked before the step writes."""
        blanked = [one for one in dict.fromkeys(new) if one in self._edited]
        self._edited.difference_update(blanked)
        self._edited.update(one for one, edits in self._given.items() if edits)
        self._given.clear()
        return blanked


def init(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """Have the new blocks of all attention layers noted; wraps `Scheduler.__init__`."""
    original(self, *args, **kwargs)
    if getattr(self.kv_cache_config, _CLEANS, False):
        compat.note_new_blocks(self.kv_cache_manager)


def kv_cache_configs(original: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
    """Have the caches of an engine with edits blanked; wraps `get_kv_cache_configs`."""
    made = original(config, *args, **kwargs)
    carried = config.additional_config
    if isinstance(carried, InterventionConfig) and carried.bundle.spliced:
        for one in made:
            setattr(one, _CLEANS, True)
    return made


def needs_kv_cache_zeroing(original: Any, self: Any) -> bool:
    """Say whether new blocks are noted; wraps `KVCacheConfig.needs_kv_cache_zeroing`."""
    return bool(original(self)) or getattr(self, _CLEANS, False)


def allocate_slots(original: Any, self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    """Note whose blocks are new; wraps `KVCacheManager.allocate_slots`."""
    made = original(self, request, *args, **kwargs)
    choice = getattr(request, KNOWN, None)
    if choice is None or made is None:
        return made
    if kwargs.get("num_external_computed_tokens"):
        # Some of its blocks are filled by a connector, and written by the request from there on.
        groups = self.get_block_ids(request.request_id)
    else:
        groups = made.get_block_ids(allow_none=True)
    for group in groups or ():
        written_of(self).give(group, bool(choice.key))
    return made


def written_of(manager: Any) -> Written:
    """Return what is known of a cache manager's blocks."""
    if not hasattr(manager, "interv_written"):
        manager.interv_written = Written()
    written: Written = manager.interv_written
    return written


def new_block_ids_to_zero(original: Any, self: Any, *args: Any, **kwargs: Any) -> list[int] | None:
    """Have the worker blank what edits wrote; wraps `Scheduler._get_new_block_ids_to_zero`."""
    new: list[int] | None = original(self, *args, **kwargs)
    config = self.kv_cache_config
    if not getattr(config, _CLEANS, False):
        return new
    blanked = written_of(self.kv_cache_manager).take(new or ())
    return new if compat.blanks_all(config) else blanked or None
