"""The `interv` command. A command's module is imported only when that command is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import typer

HELP = """Declarative interventions on a language model, compiled into vLLM.

A document says what should happen to the residual stream:

\b
    interv 1
    vector calm = "vectors/calm.gguf"
    program calm { steer calm at post_block[10..20] scale 1.5 when generated }
    default calm

Check it, see what it compiles to, and serve with it:

\b
    interv check calm.interv
    interv compile calm.interv --model MODEL --explain
    vllm serve MODEL --intervention calm.interv
"""


class Entry(NamedTuple):
    """Where a command lives, and its line in the list of commands."""

    module: str
    attribute: str
    line: str


COMMANDS = {
    "check": Entry("interv.commands.check", "check", "Check documents and their vector files."),
    "fmt": Entry("interv.commands.fmt", "fmt", "Format documents in place."),
    "compile": Entry("interv.commands.compile", "compile_", "Compile for a model, and explain."),
    "vectors": Entry("interv.commands.vectors", "app", "Look into vector files, convert them."),
    "captures": Entry("interv.commands.captures", "app", "Look into captured rows, plot them."),
    "extract": Entry("interv.commands.extract", "extract", "Make vectors from pairs of texts."),
    "import": Entry("interv.commands.import_", "import_", "Import the specs of other systems."),
    "demo": Entry("interv.commands.demo", "demo", "See a real model with and without edits."),
    "doctor": Entry("interv.commands.doctor", "doctor", "Say what would work on this machine."),
    "model": Entry("interv.commands.model", "model", "Fetch the model of the demo."),
}


def build(arguments: Sequence[str]) -> typer.Typer:
    """Return the command line for these arguments: the named command whole, the others by name.

    So `interv check` never imports what only `interv compile` needs.
    """
    app = typer.Typer(
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=HELP)(_root)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    for name, entry in COMMANDS.items():
        if name != chosen:
            app.command(name, help=entry.line)(_unloaded)
            continue
        loaded: Any = getattr(import_module(entry.module), entry.attribute)
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=name)
        else:
            app.command(name)(loaded)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what a user wrote wrong ends in a message and exit code 1 or 2."""
    from interv.errors import IntervError

    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        build(given)(given, prog_name="interv")
    except IntervError as error:
        typer.echo(str(error), err=True)
        sys.exit(1)


def _unloaded() -> None:
    raise AssertionError("a command ran without its module")


def _version(asked: bool) -> None:
    if asked:
        from interv import __version__

        typer.echo(f"interv {__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass
