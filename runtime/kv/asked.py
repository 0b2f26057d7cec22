"""What a request says of its own KV cache: `intervention_kv` is "on" or "off".

Where the client says nothing, its programs may: `kv on` or `kv off` in one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from interv.document.wording import on_off
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


def asked_kv(
    extra: Mapping[str, Any],
    settings: KvSettings | None,
    programs: Mapping[str, bool] = MappingProxyType({}),
    resumable: bool = False,
) -> bool | None:
    """Return what the client or else its programs say of the cache, None where none of them does.

    `programs` are what the request's programs say, without those that say nothing.
    Raises IntervError E580 to E583 for a wish that cannot be met.
    """
    said = extra.get(ASKED_KV)
    if said not in (None, "on", "off"):
        raise IntervError("E580", f'\'{ASKED_KV}\' is "on" or "off", not {said!r}')
    asked = _agreed(programs) if said is None else said == "on"
    if asked and settings is None:
        raise IntervError(
            "E581",
            "this engine has no KV policy",
            notes=[
                f"the request says '{ASKED_KV}': \"on\"" if said else "its program says 'kv on'"
            ],
            helps=["declare one: kv r1kv { budget = 512 }"],
        )
    on = settings is not None and (settings.default if asked is None else asked)
    if on and resumable:
        raise IntervError(
            "E582",
            "a prompt that is sent in pieces cannot be compressed",
            notes=["when it is compacted follows from its length, which is not known yet"],
            helps=[f"send the whole prompt at once, or say '{ASKED_KV}': \"off\""],
        )
    return asked


def _agreed(said: Mapping[str, bool]) -> bool | None:
    """Return what several programs say alike."""
    if not said:
        return None
    first, wish = next(iter(said.items()))
    for other, wanted in said.items():
        if wanted != wish:
            raise IntervError(
                "E583",
                f"programs '{first}' and '{other}' differ over the request's KV cache:"
                f" kv {on_off(wish)} and kv {on_off(wanted)}",
                helps=[f'say it in the request: \'{ASKED_KV}\': "on" or "off"'],
            )
    return wish
