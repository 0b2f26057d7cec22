"""Every function that is called around one of vLLM's takes what vLLM gives it, in every version."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

import pytest
from name_table import Span, Table, read_table
from python_names import Found, signature

from tests.compat.held import (
    bound_of,
    dotted,
    parameters,
    refused,
    without,
)
from tests.compat.wraps import OBJECTS, Passed, Wrap, wraps
from tests.repo.files import ROOT

TABLE = read_table(ROOT)
WRAPS = [one for one in wraps(ROOT) if not one.owner.startswith("prometheus_client")]
NAMES = {dotted(name): name for name in TABLE.names}
# What some variables are.
VARIABLES = {
    "server": [
        "vllm.entrypoints.launchers.api_server.entry",
        "vllm.entrypoints.openai.api_server",
    ],
    "found": [
        "vllm.entrypoints.generate.beam_search.offline:BeamSearchOfflineMixin",
        "vllm.entrypoints.generate.beam_search.online:BeamSearchOnlineMixin",
    ],
    "result": ["vllm.v1.outputs:AsyncModelRunnerOutput"],
    "runner.kv_block_zeroer": ["vllm.v1.worker.utils:KVBlockZeroer"],
}
# Whose first arguments vLLM gives by place, in every version that is in the table: ours have names
# of their own.
BY_PLACE = {
    "vllm.v1.core.sched.scheduler:Scheduler.update_from_output",
    "vllm.v1.core.kv_cache_utils:_gen_prompt_embeds_extra_hash_keys",
    "vllm.v1.engine.core:get_kv_cache_configs",
    "vllm.v1.engine.output_processor:OutputProcessor.process_outputs",
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner._zero_block_ids",
    "vllm.v1.worker.utils:KVBlockZeroer.zero_block_ids",
}
# Adapters alone need it.
UNDECLARED = {"load_lora_model"}


def wrapped(wrap: Wrap) -> list[str]:
    """Return the names of the table that a function is called around."""
    owners = VARIABLES.get(wrap.owner, [wrap.owner] if ":" in wrap.owner else OBJECTS)
    written = [dotted(f"{owner}.{wrap.member}") for owner in owners]
    return [NAMES[one] for one in written if one in NAMES]


def refusals(wrap: Wrap, table: Table) -> list[tuple[str, str, str]]:
    """Return the calls that the function does not take, by name and version."""
    ours = parameters(wrap.form)
    if "self" in list(ours.parameters)[:1]:
        ours = without(ours, "self")
    ours = without(ours, "original")
    wrong = []
    for name, version, found, bound in _each(wrap, table):
        how = "by place" if name in BY_PLACE else "both"
        wrong += [(name, version, call) for call in refused(found, ours, bound, how)]
    return wrong


def passed_wrongly(wrap: Wrap, table: Table) -> list[tuple[str, str, Passed]]:
    """Return the calls of ours that vLLM's function does not take, by name and version."""
    wrong = []
    for name, version, found, _ in _each(wrap, table):
        theirs = parameters(found.form)
        for one in wrap.passed:
            bind = theirs.bind_partial if one.more else theirs.bind
            try:
                bind(*range(one.places), **dict.fromkeys(one.names))
            except TypeError:
                wrong.append((name, version, one))
    return wrong


def _each(wrap: Wrap, table: Table) -> Iterator[tuple[str, str, Found, int]]:
    """Yield what is wrapped, by name and version, and how many of its arguments are bound."""
    for name in wrapped(wrap):
        for version in table.versions:
            if (found := table.find(name, version)) is None:
                continue
            bound = bound_of(name, found)
            if ":" not in wrap.owner and bound and wrap.owner not in ("server", "found"):
                found, bound = _of_object(found), 0
            yield name, version, found, bound


def _of_object(found: Found) -> Found:
    """Return a method as it is called of an object: what it is bound to is given."""
    first = str(next(iter(parameters(found.form).parameters)))
    return replace(found, form=found.form.replace(first, "", 1).replace("(, ", "(", 1))


@pytest.mark.parametrize("wrap", WRAPS, ids=lambda one: f"{one.module}:{one.member}")
def test_it_takes_every_call(wrap: Wrap) -> None:
    assert refusals(wrap, TABLE) == []
    assert passed_wrongly(wrap, TABLE) == []


def test_all_that_is_wrapped_is_declared() -> None:
    assert {one.member for one in WRAPS if not wrapped(one)} <= UNDECLARED


def test_the_wraps_were_found() -> None:
    """Of each kind: a class's, a module's, one that a function makes, an object's."""
    found = {(one.owner.rpartition(":")[2], one.member) for one in WRAPS}
    assert found >= {
        ("EngineArgs", "from_cli_args"),
        ("core", "get_kv_cache_configs"),
        ("Scheduler", "_handle_blocked_waiting_request"),
        ("EngineCore", "step_with_batch_queue"),
        ("server", "build_app"),
        ("runner", "prepare_inputs"),
        ("self._runner", "_update_states"),
    }


def test_a_call_that_is_not_taken_is_found() -> None:
    """Each wrapper without `*args` and `**kwargs`, and vLLM's function with an argument more."""
    for wrap in (one for one in WRAPS if wrapped(one)):
        short = wrap.form.replace(", *args: Any", "").replace(", **kwargs: Any", "")
        short = short.replace(", **more: Any", "")
        names = {name: [_longer(span) for span in TABLE.names[name]] for name in wrapped(wrap)}
        table = Table(TABLE.versions, names)
        said = refusals(replace(wrap, form=short), table)
        there = {(n, v) for n in names for v in TABLE.versions if TABLE.find(n, v)}
        assert {(name, version) for name, version, _ in said} == there, wrap
        if wrap.passed:  # else by a function in it
            plain = tuple(replace(one, more=False) for one in wrap.passed)
            lost = passed_wrongly(replace(wrap, passed=plain), table)
            assert {(name, version) for name, version, _ in lost} == there, wrap


def _longer(span: Span) -> Span:
    """Return a function with one more argument, which has to be given."""
    (function,) = ast.parse(f"def f{span.form.removeprefix('async ')}: ...").body
    assert isinstance(function, ast.FunctionDef)
    function.args.kwonlyargs.append(ast.arg("more"))
    function.args.kw_defaults.append(None)
    return replace(span, form=signature(function))
