"""What a request says of its own KV cache: `intervention_kv` is "on" or "off"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interv.errors import IntervError
from interv.kv.settings import KvSettings

ASKED_KV = "intervention_kv"


def is_compressed(params: Any, settings: KvSettings) -> bool:
    """Say whether a request with these sampling parameters is compressed; pooling ones are not."""
    if params is None:
        return False
    extra: Mapping[str, Any] = getattr(params, "extra_args", None) or {}
    asked = extra.get(ASKED_KV)
    return settings.default if asked is None else asked == "on"


def check_asked(
    extra: Mapping[str, Any], settings: KvSettings | None, resumable: bool = False
) -> None:
    """Raise IntervError E580 to E582 for a wish that cannot be met."""
    asked = extra.get(ASKED_KV)
    if asked not in (None, "on", "off"):
        raise IntervError("E580", f'\'{ASKED_KV}\' is "on" or "off", not {asked!r}')
    if asked == "on" and settings is None:
        raise IntervError(
            "E581",
            "this engine has no KV policy",
            notes=[f"the request says '{ASKED_KV}': \"on\""],
            helps=["declare one: kv r1kv { budget = 512 }"],
        )
    on = settings is not None and (settings.default if asked is None else asked == "on")
    if on and resumable:
        raise IntervError(
            "E582",
            "a prompt that is sent in pieces cannot be compressed",
            notes=["when it is compacted follows from its length, which is not known yet"],
            helps=[f"send the whole prompt at once, or say '{ASKED_KV}': \"off\""],
        )
