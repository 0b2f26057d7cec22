"""Every version of vLLM has what interv needs, by a table of names made from the wheels.

`python scripts/seam_table.py` makes the table.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from name_table import Table, read_table
from seam_table import wanted
from vllm_uses import vllm_uses

from interv.runtime.compat.seams import SEAMS, Name, Seam
from tests.compat.held import (
    calls,
    dotted,
    lost,
    parameters,
    unbound,
    undeclared,
    ways,
    without_a_way,
    wrongly_looked_for,
)
from tests.repo.files import ROOT

TABLE = read_table(ROOT)
USES = vllm_uses(ROOT)
NAMES = [name for seam in SEAMS for way in seam.candidates for name in way]
OVERRIDES = {use.name: parameters(use.override) for use in USES if use.override}
# Managers are made in one place.
HOWS = {"vllm.v1.core.single_type_kv_cache_manager:FullAttentionManager.__init__": "by name"}
# What no seam declares: an object, which is made when it is first asked for, and fields without
# which no engine could answer.
BESIDE = {
    "vllm.platforms:current_platform",
    "vllm.v1.engine:EngineCoreOutput.new_token_ids",
    "vllm.v1.engine:EngineCoreOutput.request_id",
}
# Ways that only some versions have: which is taken where, 0 for the newest.
CHANGES = {
    "a request may wait": {"0.26.0": 1, "0.31.0": 0},
    "a chunk may end early": {"0.26.0": 1, "0.28.0": 0},
    "the server's application": {"0.26.0": 1, "0.29.0": 0},
    "which blocks are new": {"0.26.0": 1, "0.28.0": 0},
    "the length of a new request's prompt": {"0.26.0": 1, "0.29.0": 0},
}


def test_the_table_is_about_the_names_that_are_used() -> None:
    """Where this fails, run `python scripts/seam_table.py` and read the diff."""
    assert sorted(TABLE.names) == wanted(ROOT)


def test_every_version_has_a_way_for_every_seam() -> None:
    assert without_a_way(TABLE, SEAMS) == []


@pytest.mark.parametrize("seam", SEAMS, ids=lambda one: one.title)
def test_the_newest_way_is_taken_where_it_is_there(seam: Seam) -> None:
    taken, last = {}, None
    for version in TABLE.versions:
        first = next(iter(ways(TABLE, seam, version)), None)
        if first != last:
            taken[version] = last = first
    assert taken == CHANGES.get(seam.title, {TABLE.versions[0]: 0})


def test_every_way_is_one_that_some_version_needs() -> None:
    taken = {(s.title, way) for s in SEAMS for v in TABLE.versions for way in ways(TABLE, s, v)[:1]}
    assert taken == {(s.title, number) for s in SEAMS for number in range(len(s.candidates))}


def test_what_a_class_does_not_show_is_declared_as_an_attribute() -> None:
    assert wrongly_looked_for(TABLE, NAMES) == []


def test_every_version_has_what_is_imported() -> None:
    assert lost(TABLE, USES, [name.path for name in NAMES]) == []


def test_what_is_imported_is_declared() -> None:
    """So that an engine which was asked for an intervention says at its start what is missing."""
    assert undeclared(TABLE, USES, [name.path for name in NAMES]) <= BESIDE


def test_methods_that_stand_for_one_of_vllm_take_its_calls() -> None:
    assert unbound(TABLE, OVERRIDES, HOWS) == []


def test_a_name_that_goes_away_is_found() -> None:
    """Take every name of every seam away from one version in turn."""
    for seam in SEAMS:
        for version in TABLE.versions:
            there = ways(TABLE, seam, version)
            for name in seam.candidates[there[0]]:
                shorter = _without(TABLE, name.path, version)
                left = [way for way in there if name not in seam.candidates[way]]
                assert ways(shorter, seam, version) == left
                expected = [] if left else [(seam.title, version)]
                assert without_a_way(shorter, [seam]) == expected


def test_an_import_that_goes_away_is_found() -> None:
    name = "vllm.distributed.utils:get_pp_indices"
    assert lost(_without(TABLE, name, "0.29.0"), USES, []) == [(name, "0.29.0")]


def test_an_import_that_no_seam_declares_is_found() -> None:
    declared = [name.path for name in NAMES if not name.path.endswith(":get_pp_indices")]
    assert undeclared(TABLE, USES, declared) - BESIDE == {"vllm.distributed.utils:get_pp_indices"}


def test_an_attribute_that_a_class_does_not_show_is_found() -> None:
    names = [Name("vllm.v1.core.kv_cache_manager:KVCacheManager.coordinator")]
    assert wrongly_looked_for(TABLE, names) == [(names[0].path, one) for one in TABLE.versions]


def test_an_argument_more_is_found() -> None:
    name = "vllm.v1.core.single_type_kv_cache_manager:FullAttentionManager.allocate_new_blocks"
    (span,) = TABLE.names[name]
    ours = {name: parameters(span.form)}
    assert unbound(TABLE, ours, HOWS) == []
    longer = replace(span, form=span.form.replace(") ->", ", group: int=0) ->"))
    said = unbound(Table(TABLE.versions, {name: [longer]}), ours, HOWS)
    assert [version for _, version, _ in said] == [v for v in TABLE.versions for _ in range(2)]
    assert {call for _, _, call in said} == {
        "(self, request_id, num_tokens, num_tokens_main_model, group): "
        "too many positional arguments",
        "(self, request_id=…, num_tokens=…, num_tokens_main_model=…, group=…): "
        "got an unexpected keyword argument 'group'",
    }


def test_the_forms_of_a_call() -> None:
    signature = parameters("(self, a: int, b: dict[str, int] | None=None, *, c=1, **rest) -> int")
    assert list(calls(signature, bound=1)) == [
        (["self", "a"], {}),
        (["self"], {"a": "a"}),
        (["self", "a", "b"], {"c": "c"}),
        (["self"], {"a": "a", "b": "b", "c": "c"}),
    ]
    assert dotted("vllm:envs.NAME") == dotted("vllm.envs:NAME")


def _without(table: Table, name: str, version: str) -> Table:
    """Return the table as if a version did not have a name."""
    at = table.versions.index(version)
    spans = []
    for span in table.names[name]:
        ends = span.first, span.last or table.versions[-1]
        first, last = map(table.versions.index, ends)
        for low, high in ((first, min(last, at - 1)), (max(first, at + 1), last)):
            if low <= high:
                spans.append(replace(span, first=table.versions[low], last=table.versions[high]))
    return Table(table.versions, {**table.names, name: spans})
