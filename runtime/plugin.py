"""The `vllm.general_plugins` entry point: four seams, each inert without `--intervention`.

1. the command line and the engine's arguments (this file): compile documents, carry the bundle;
2. the compiler of the model's graph (`backend.py`): splice;
3. the worker (`attach.py`): tables, and the tokens of each step;
4. admission (this file): what a request may not ask for is refused before it is queued.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from interv.errors import IntervError
from interv.load import load_documents
from interv.runtime import compat
from interv.runtime.config import DEFAULT_SLOTS, KEY, arm, compile_for, options_of

_DONE = "_interv_seam"
_FROM_COMMAND_LINE = "_interv_from_command_line"


def register() -> None:
    """Install the seams in this process; calling it again changes nothing."""
    from interv.runtime.attach import after_init_device
    from interv.runtime.backend import init_backend

    arguments = compat.engine_args_class()
    _wrap(arguments, "add_cli_args", _add_cli_args, kind=staticmethod)
    _wrap(arguments, "from_cli_args", _from_cli_args, kind=classmethod)
    _wrap(arguments, "create_engine_config", _create_engine_config)
    _wrap(compat.compilation_config_class(), "init_backend", init_backend)
    _wrap(compat.worker_wrapper_class(), "init_device", after_init_device)
    _wrap(compat.sampling_params_class(), "verify", _verify)


def _wrap(owner: Any, name: str, wrapper: Any, kind: Any = None) -> None:
    """Replace a method by `wrapper(original, …)`, once."""
    original = getattr(owner, name)
    if getattr(original, _DONE, False):
        return
    # A class method is wrapped below its binding, so that subclasses still bind to themselves.
    inner = original.__func__ if kind is classmethod else original

    @functools.wraps(inner)
    def method(*args: Any, **kwargs: Any) -> Any:
        return wrapper(inner, *args, **kwargs)

    setattr(method, _DONE, True)
    setattr(owner, name, kind(method) if kind else method)


def _add_cli_args(original: Any, parser: Any) -> Any:
    parser = original(parser)
    group = parser.add_argument_group(
        title="interv", description="Interventions on the residual stream, compiled into the graph."
    )
    group.add_argument(
        "--intervention",
        action="append",
        metavar="FILE",
        help="An .interv document (or its JSON or YAML form). May be given more than once; the "
        "document's 'default' says which program applies to requests.",
    )
    group.add_argument(
        "--intervention-slots",
        type=int,
        default=DEFAULT_SLOTS,
        metavar="N",
        help="How many different request expressions may be in flight at once.",
    )
    return parser


def _from_cli_args(original: Any, cls: Any, args: Any) -> Any:
    made = original(cls, args)
    if files := getattr(args, "intervention", None):
        with _exit_on_error():
            load_documents(files)
        options = {"files": list(files), "slots": args.intervention_slots}
        made.additional_config = {**(made.additional_config or {}), KEY: options}
        setattr(made, _FROM_COMMAND_LINE, True)
    return made


def _create_engine_config(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    whole = self.additional_config
    if not (isinstance(whole, dict) and KEY in whole):
        return original(self, *args, **kwargs)
    with _exit_on_error(getattr(self, _FROM_COMMAND_LINE, False)):
        compat.check_version()
        options = options_of(whole)
        assert options is not None
        documents = load_documents(options["files"])
    try:
        self.additional_config = {k: v for k, v in whole.items() if k != KEY}
        config = original(self, *args, **kwargs)
    finally:
        self.additional_config = whole
    with _exit_on_error(getattr(self, _FROM_COMMAND_LINE, False)):
        arm(config, compile_for(config, documents), options)
    return config


def _verify(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Refuse a program chosen by a request: its answer would be another one than it asked for."""
    asked = (self.extra_args or {}).get("intervention")
    if asked is not None:
        error = IntervError(
            "E505",
            "a program per request is not supported yet",
            notes=[f"the request asks for {asked!r}", "every request gets the default program"],
            helps=["leave 'intervention' out of the request"],
        )
        raise compat.bad_request(str(error))
    return original(self, *args, **kwargs)


class _exit_on_error:
    """On the command line, show a user's mistake as a diagnostic and exit; elsewhere raise it."""

    def __init__(self, active: bool = True) -> None:
        self._active = active

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._active and isinstance(error, IntervError):
            print(error, file=sys.stderr, flush=True)
            sys.exit(1)
