"""Which keys of a request are taken for interv's own, misspelt or in another place."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from interv.errors import IntervError
from interv.runtime.frontend.request_fields import (
    FIELDS,
    OF_TOKENS,
    OFFLINE,
    OVER_HTTP,
    fields_in,
    meant,
)

MEANT = {
    "interventon": "intervention",
    "interventions": "intervention",
    "Intervention": "intervention",
    "INTERVENTION": "intervention",
    "intervantion": "intervention",
    "inter_vention": "intervention",
    "intervention_": "intervention",
    "intervention-report": "intervention_report",
    "interventionReport": "intervention_report",
    "interventionreport": "intervention_report",
    "interventon_repport": "intervention_report",
    "intervention_tags": "intervention_tag",
    "intervention_KV": "intervention_kv",
    "intervention_strength": "intervention",
    "interv": "intervention",
    "interv_report": "intervention_report",
    "interv_captures": "intervention",
}
OTHERS = (
    *("intention", "invention", "prevention", "convention", "intersection", "interception"),
    *("interaction", "interval", "intermission", "interventricular", "internet", "intent"),
    *("medical_intervention_level", "my_intervention", "report", "tag", "kv", "kv_transfer_params"),
    *("session_id", "priority", "", "_", "é", "x" * 5000, "intervention" + "x" * 5000),
)


@pytest.mark.parametrize("key", MEANT)
def test_keys_that_are_close(key: str) -> None:
    assert meant(key) == MEANT[key]


@pytest.mark.parametrize("key", [*OTHERS, *FIELDS])
def test_keys_of_others(key: str) -> None:
    assert meant(key) is None


@given(st.sampled_from(FIELDS), st.data())
def test_a_slip_of_the_hand_is_close(field: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(field) - 2))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz"))
    a, b = field[at], field[at + 1]
    slips = ("", a + a, letter, letter + a, b + a)
    for slip in slips:
        behind = 2 if slip == b + a else 1
        written = field[:at] + slip + field[at + behind :]
        assert written in FIELDS or meant(written) is not None


def test_where_fields_stand() -> None:
    asked = {"intervention": "joy", "intervention_tag": "night"}
    assert fields_in({"vllm_xargs": {**asked, "other": 1}}, OVER_HTTP) == asked
    assert fields_in({"sampling_params": {"extra_args": asked}}, OF_TOKENS) == asked
    assert fields_in(asked, OFFLINE) == asked
    assert fields_in({"vllm_xargs": None, "metadata": asked, "tools": [asked]}, OVER_HTTP) == {}
    for wrong in ({"vllm_args": asked}, {"extra_body": {"vllm_xargs": asked}}, asked):
        with pytest.raises(IntervError, match="a request has no field"):
            fields_in(wrong, OVER_HTTP)


def test_every_wrong_field_is_named_once() -> None:
    with pytest.raises(IntervError) as caught:
        fields_in({"vllm_xargs": {"interventon": "a", "intervention_reprot": 1}}, OVER_HTTP)
    first, second = str(caught.value).split("\n\n")
    assert first.startswith("error[E511]: a request has no field 'vllm_xargs.interventon'\n")
    assert second.endswith("did you mean 'vllm_xargs.intervention_report'?")
