"""What is left of interv on a vLLM that it cannot run on: who asks for it is told why.

Only what reads arguments is wrapped, and only where it is there; an engine that was not asked for
an intervention is vLLM's own.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from interv.errors import IntervError
from interv.runtime import compat
from interv.runtime.config import KEY

# The options of `command_line.py`.
OPTIONS = (
    "--intervention",
    "--intervention-slots",
    "--intervention-inline",
    "--intervention-absorb-norm",
)


def refusing_seams(arguments: Any) -> Iterator[tuple[Any, ...]]:
    """Yield what is wrapped of the class of the engine's arguments."""
    for name, wrapper, *kind in (
        ("add_cli_args", add_cli_args, staticmethod),
        ("create_engine_config", create_engine_config),
    ):
        if hasattr(arguments, name):
            yield (arguments, name, wrapper, *kind)


def add_cli_args(original: Any, parser: Any, *args: Any, **kwargs: Any) -> Any:
    """Know our options, so as to refuse them; wraps `EngineArgs.add_cli_args`."""
    made = original(parser, *args, **kwargs)
    # Whatever this vLLM's parser is, stock arguments are read as ever.
    with contextlib.suppress(Exception):
        made.add_argument(*OPTIONS, nargs="?", action=_Refuse, help=argparse.SUPPRESS)
    return made


def create_engine_config(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Refuse an engine that is asked for interventions; wraps the method of that name."""
    whole = getattr(self, "additional_config", None)
    if isinstance(whole, dict) and KEY in whole and (error := compat.fault()) is not None:
        raise error
    return original(self, *args, **kwargs)


def refuse_command(arguments: Sequence[str], error: IntervError) -> None:
    """Exit where a command line of vLLM's own has one of our options, which nothing would read."""
    said = {one.partition("=")[0] for one in arguments[1:]}
    if arguments and Path(arguments[0]).name == "vllm" and said & {*OPTIONS}:
        _exit(error)


class _Refuse(argparse.Action):
    """Any of our options: nothing of it can be had."""

    def __call__(self, *_: Any, **__: Any) -> None:
        if (error := compat.fault()) is not None:
            _exit(error)


def _exit(error: IntervError) -> None:
    print(error, file=sys.stderr, flush=True)
    sys.exit(1)
