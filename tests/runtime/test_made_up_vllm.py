"""A vLLM that nobody has seen: where it lacks a seam nothing is wrapped, and who asks is told."""

from __future__ import annotations

import argparse
import inspect
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from interv.errors import IntervError
from interv.runtime.compat import version
from interv.runtime.compat.lookup import Found
from interv.runtime.compat.seams import SEAMS, Name, Seam
from interv.runtime.config import KEY
from interv.runtime.frontend import unsupported
from interv.runtime.wrap import wrap_seam

ROOT = Path(__file__).parents[2]
ARGUMENTS = [
    "vllm.engine.arg_utils:EngineArgs.add_cli_args",
    "vllm.engine.arg_utils:EngineArgs.create_engine_config",
]
KV_ONLY = "vllm.v1.core.sched.scheduler:Scheduler._reserve_prefill_lookahead"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("made") / "up"
    command = [sys.executable, "-m", "tests.runtime.made_up", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_vllm_with_every_seam_is_wrapped(report: dict[str, Any]) -> None:
    whole = report["all"]
    assert whole["fault"] == whole["server"] == whole["lacks"] == ""
    assert whole["said"] == []  # what is new is said to those who ask for an intervention
    assert {*ARGUMENTS, KV_ONLY} < {*whole["wrapped"]}
    assert "vllm.v1.core.sched.scheduler:Scheduler._free_request" in whole["wrapped"]


def test_the_oldest_ways_are_wrapped_where_the_newer_are_missing(report: dict[str, Any]) -> None:
    newer, older = ({*report[one]["wrapped"]} for one in ("all", "oldest"))
    scheduler = "vllm.v1.core.sched.scheduler:Scheduler"
    assert newer - older == {f"{scheduler}._handle_blocked_waiting_request", KV_ONLY}
    assert older - newer == {
        f"{scheduler}._select_waiting_queue_for_scheduling",
        f"{scheduler}._is_blocked_waiting_status",
        f"{scheduler}._try_promote_blocked_waiting_request",
        f"{scheduler}._mamba_block_aligned_split",
    }
    assert report["oldest"]["fault"] == report["oldest"]["lacks"] == ""


@pytest.mark.parametrize("title", [one.title for one in SEAMS if one.needed_by == "interv"])
def test_without_a_seam_nothing_is_wrapped(report: dict[str, Any], title: str) -> None:
    found = report["each"][title]
    # What reads arguments is, so as to refuse them.
    assert {*found["wrapped"]} <= {*ARGUMENTS}
    assert len(found["said"]) == 1
    assert found["said"][0].startswith("interv does nothing here: vLLM 9.9.9 is not supported")
    assert f"'{title}'" in found["said"][0]
    assert found["fault"].startswith("error[E501]: vLLM 9.9.9 is not supported\n")
    assert f"missing for '{title}': vllm." in found["fault"]


# Its older way is fields of a class that edits need, too: without that nothing is wrapped.
SHARED = "the length of a new request's prompt"
OF_KV = [one.title for one in SEAMS if one.needed_by == "kv" and one.title != SHARED]


@pytest.mark.parametrize("title", OF_KV)
def test_without_a_seam_of_policies_only_those_are_refused(
    report: dict[str, Any], title: str
) -> None:
    found, whole = report["each"][title], report["all"]
    assert found["fault"] == found["server"] == ""
    assert f"'{title}'" in found["lacks"]
    assert {*whole["wrapped"]} - {*found["wrapped"]} == {KV_ONLY}


@pytest.mark.parametrize("title", [one.title for one in SEAMS if one.needed_by == "http"])
def test_without_a_seam_of_servers_only_those_are_refused(
    report: dict[str, Any], title: str
) -> None:
    found = report["each"][title]
    assert found["fault"] == found["lacks"] == ""
    assert found["wrapped"] == report["all"]["wrapped"]
    said = f"error[E501]: the server of vLLM 9.9.9 is not supported\n  = missing for '{title}': "
    assert found["server"].startswith(said)


def test_an_engine_that_could_not_be_refused_is_told_of_before(report: dict[str, Any]) -> None:
    """`interv.engine_args` raises where no engine would look at what it returns."""
    said = {title: found["engine_args"] for title, found in report["each"].items()}
    assert [title for title, error in said.items() if error] == ["arguments"]
    assert said["arguments"] == report["each"]["arguments"]["fault"]
    assert report["nothing"]["engine_args"] == report["nothing"]["fault"]


def test_an_empty_vllm_is_left_alone(report: dict[str, Any]) -> None:
    nothing = report["nothing"]
    assert nothing["wrapped"] == []
    lines = nothing["fault"].splitlines()
    assert lines[0] == "error[E501]: vLLM 9.9.9 is not supported"
    assert lines[-2] == f"  = and what {len(interv_seams()) - 8} more seams need"


def test_a_vllm_that_cannot_be_attached_to_is_left_alone(report: dict[str, Any]) -> None:
    broken = report["broken"]
    assert broken["wrapped"] == ARGUMENTS
    assert broken["said"] == [
        "interv does nothing here: vLLM 9.9.9 is not supported,"
        " it cannot be attached to: OSError: no such device"
    ]
    assert broken["fault"] == (
        "error[E501]: vLLM 9.9.9 is not supported\n"
        "  = it cannot be attached to: OSError: no such device\n"
        "  = interv was tried on vLLM 0.26 to 0.33"
    )


def interv_seams() -> list[Seam]:
    return [one for one in SEAMS if one.needed_by == "interv"]


class Args:
    """vLLM's arguments, as far as they are read."""

    def __init__(self, additional_config: Any) -> None:
        self.additional_config = additional_config

    @staticmethod
    def add_cli_args(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        """Add what is vLLM's own."""
        parser.add_argument("--model")
        return parser

    def create_engine_config(self, usage: str) -> tuple[str, Any]:
        """Return what was given."""
        return usage, self.additional_config


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> type[Args]:
    """Give arguments of a vLLM that lacks a seam."""
    lacking = Found(Seam("a thing", "any", "interv", ((Name("vllm.no_module:name"),),)), None)
    monkeypatch.setattr(version, "missing", lambda *_: (lacking,))
    monkeypatch.setattr(version, "vllm_version", lambda: "0.99.0")
    made = type("Own", (Args,), {})
    for seam in unsupported.refusing_seams(made):
        wrap_seam(*seam)
    return made


MESSAGE = (
    "error[E501]: vLLM 0.99.0 is not supported\n"
    "  = missing for 'a thing': vllm.no_module:name\n"
    "  = interv was tried on vLLM 0.26 to 0.33"
)


@pytest.mark.parametrize(
    "asked",
    [
        ["--intervention", "a.interv"],
        ["--intervention=a.interv"],
        ["--intervention-inline"],
        ["--intervention-slots", "4", "--model", "m"],
        ["--intervention-absorb-norm", "--intervention", "a"],
    ],
)
def test_a_command_line_that_asks_ends_with_e501(
    refused: type[Args], asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    parser = refused.add_cli_args(argparse.ArgumentParser())
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(asked)
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"{MESSAGE}\n"


def test_a_stock_command_line_is_read_as_ever(refused: type[Args]) -> None:
    parser = refused.add_cli_args(argparse.ArgumentParser())
    stock = Args.add_cli_args(argparse.ArgumentParser())
    given = ["--model", "m"]
    assert parser.parse_args(given).model == stock.parse_args(given).model == "m"
    assert parser.format_help() == stock.format_help()


def test_a_parser_that_takes_no_options_is_left_as_it_is(refused: type[Args]) -> None:
    class Odd:
        def add_argument(self, *names: str, **options: Any) -> None:
            if "action" in options:
                raise TypeError("no actions")

    odd: Any = Odd()
    assert refused.add_cli_args(odd) is odd


def test_an_engine_that_is_asked_ends_with_e501_and_others_run(refused: type[Args]) -> None:
    for own in ({}, {"theirs": 1}, None, "text"):
        assert refused(own).create_engine_config("usage") == ("usage", own)
    with pytest.raises(IntervError) as caught:
        refused({KEY: {"files": ["a.interv"]}}).create_engine_config("usage")
    assert str(caught.value) == MESSAGE


@pytest.mark.parametrize(
    ("arguments", "ends"),
    [
        (["/bin/vllm", "serve", "m", "--intervention", "f"], True),
        (["vllm", "serve", "m", "--intervention-inline"], True),
        (["vllm", "serve", "m", "--intervention=f"], True),
        (["vllm", "serve", "m"], False),
        (["other.py", "--intervention", "f"], False),
        ([], False),
    ],
)
def test_a_command_without_arguments_of_vllm(
    arguments: list[str], ends: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    error = IntervError("E501", "vLLM 0.99.0 is not supported")
    if not ends:
        unsupported.refuse_command(arguments, error)
        return
    with pytest.raises(SystemExit):
        unsupported.refuse_command(arguments, error)
    assert capsys.readouterr().err == "error[E501]: vLLM 0.99.0 is not supported\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, at its first import
def test_the_parser_of_this_vllm_takes_the_refusal(
    refused: type[Args], capsys: pytest.CaptureFixture[str]
) -> None:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    own = type("Own", (), {"add_cli_args": staticmethod(inspect.unwrap(EngineArgs.add_cli_args))})
    for seam in unsupported.refusing_seams(own):
        wrap_seam(*seam)
    parser = own.add_cli_args(FlexibleArgumentParser())  # type: ignore[attr-defined]
    assert parser.parse_args(["--seed", "3"]).seed == 3
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--seed", "3", "--intervention", "f"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"{MESSAGE}\n"


def test_a_newer_vllm_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(version, "missing", lambda *_: ())
    monkeypatch.setattr(version, "vllm_version", lambda: "0.98.0")
    monkeypatch.setattr(version.log, "propagate", True)
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    version._say_newer.cache_clear()
    with caplog.at_level(logging.WARNING):
        version.check_version()
        version.check_version()
    assert caplog.messages == [
        "interv: vLLM 0.98.0 has all that interv needs, but it was tried on vLLM 0.26 to 0.33"
    ]
