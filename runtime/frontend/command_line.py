"""The command line and the engine's arguments: documents are compiled, and a bundle is carried."""

from __future__ import annotations

import sys
from typing import Any

from interv.errors import IntervError
from interv.load import load_documents
from interv.runtime import compat
from interv.runtime.config import DEFAULT_SLOTS, KEY, InterventionConfig, counters_path, options_of
from interv.runtime.frontend import stopping
from interv.runtime.frontend.beam_search import beam_search
from interv.runtime.frontend.metrics import expose
from interv.runtime.frontend.requests import check_model
from interv.runtime.frontend.server_routes import build_app
from interv.runtime.frontend.start import arm, compile_for
from interv.runtime.wrap import wrap_seam

_FROM_COMMAND_LINE = "_interv_from_command_line"


def add_cli_args(original: Any, parser: Any) -> Any:
    """Add our options to the command line; wraps `EngineArgs.add_cli_args`."""
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
        help="How many different configurations may be in flight at once; requests beyond wait.",
    )
    group.add_argument(
        "--intervention-inline",
        action="store_true",
        help="Let requests bring whole programs of their own, over the vectors and sites of the "
        "documents. Without it they can name the documents' programs only.",
    )
    group.add_argument(
        "--intervention-absorb-norm",
        action="store_true",
        help="Join each update with the fused add-RMSNorm that follows it, where the graph has "
        "one, so that an edit adds no launch. Unedited answers may then differ in last bits.",
    )
    return parser


def from_cli_args(original: Any, cls: Any, args: Any) -> Any:
    """Read them, and the documents; wraps `EngineArgs.from_cli_args`."""
    made = original(cls, args)
    if files := getattr(args, "intervention", None):
        whole = made.additional_config or {}
        if KEY not in whole:
            with _exit_on_error():
                load_documents(files)
            options = {
                "files": list(files),
                "slots": args.intervention_slots,
                "inline": args.intervention_inline,
                "absorb_norm": args.intervention_absorb_norm,
                "counters": counters_path(),
            }
            # The other processes of a server read these arguments too, some before plugins are
            # loaded there; and all of them count in one place.
            args.additional_config = whole = {**whole, KEY: options}
        made.additional_config = whole
    if isinstance(made.additional_config, dict) and KEY in made.additional_config:
        setattr(made, _FROM_COMMAND_LINE, True)
    return made


def create_engine_config(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Compile the documents into a configuration; wraps `EngineArgs.create_engine_config`."""
    _guard_frontend()
    whole = self.additional_config
    if not (isinstance(whole, dict) and KEY in whole):
        return original(self, *args, **kwargs)
    with _exit_on_error(getattr(self, _FROM_COMMAND_LINE, False)):
        compat.check_version()
        if compat.server_module() is not None or hasattr(self, _FROM_COMMAND_LINE):
            compat.check_server()
        options = options_of(whole)
        assert options is not None
        documents = load_documents(options["files"])
    try:
        self.additional_config = {k: v for k, v in whole.items() if k != KEY}
        config = original(self, *args, **kwargs)
    finally:
        self.additional_config = whole
    with _exit_on_error(getattr(self, _FROM_COMMAND_LINE, False)):
        arm(config, compile_for(config, documents, options), options)
    if isinstance(config.additional_config, InterventionConfig):
        expose(config.additional_config)
        stopping.end_on_sigterm(config.additional_config)
    return config


def _guard_frontend() -> None:
    """Look at what comes in beside `process_inputs`, in a process that has a server or an `LLM`."""
    server = compat.server_module()
    if server is not None and not compat.lacks("http"):
        wrap_seam(compat.serving_class(), "_check_model", check_model)
        wrap_seam(server, "build_app", build_app)
    for found in compat.beam_search_classes():
        wrap_seam(found, "beam_search", beam_search)


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
