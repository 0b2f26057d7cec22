"""What a request may ask for, what it gets, and the words for what it cannot have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from interv.errors import IntervError
from interv.runtime.choice import Choice
from interv.runtime.frontend import admission
from interv.runtime.frontend.admission import Admission
from tests.runtime.documents import CALM, carried, config

INLINE = "interv 1\nprogram p {\n  ablate w at post_block[1]\n}\n"
NEGATIVE = "caps, ablates, replaces or rotates: its multiplier cannot be negative"
HERE = "  = programs here: calm, formal, quiet"
NO_TEXT = 'error[E505]: \'intervention\' is a text such as "calm*1.5 + formal" or "off", not'

WRONG = {
    "clam*1.5": f"""\
error[E205]: no program is called 'clam'
 --> <request>:1:1
  |
1 | clam*1.5
  | ^^^^ unknown program
  |
{HERE}
  = did you mean 'calm'?""",
    "calm*x": """\
error[E101]: expected a number, found 'x'
 --> <request>:1:6
  |
1 | calm*x
  |      ^ expected a number""",
    "calm*1e39": """\
error[E105]: 1e39 is too large
 --> <request>:1:6
  |
1 | calm*1e39
  |      ^^^^ too large""",
    "quiet + calm*3e38": """\
error[E105]: 3e+38 times program 'calm' is too large
  = in the request: quiet + calm*3e38
  = a scale is at most 3.4e38 (float32)""",
    "": """\
error[E102]: the text ends where a name should stand
 --> <request>:1:1
  |
1 | \n\
  | ^ expected a name
  |
  = a request is NAME [* NUMBER] {+ NAME [* NUMBER]} or off""",
    "calm +": """\
error[E102]: the text ends where a name should stand
 --> <request>:1:7
  |
1 | calm +
  |       ^ expected a name""",
    "c" * 4097: "error[E109]: an expression has at most 4096 characters, this one 4097",
    "off + calm": """\
error[E212]: 'off' stands alone: it cannot be multiplied or added
 --> <request>:1:1
  |
1 | off + calm
  | ^^^ not a program""",
    "calm + calm*0": """\
error[E206]: program 'calm' is named twice
 --> <request>:1:8
  |
1 | calm + calm*0
  |        ^^^^ again
 --> <request>:1:1
  |
1 | calm + calm*0
  | ^^^^ first here""",
    "calm*-1 + formal*-0.5": """\
error[E405]: program 'formal' caps, ablates, replaces or rotates: its multiplier cannot be negative
  = in the request: calm*-1 + formal*-0.5
  = a strength is not below 0
  = multiply programs that only steer, or leave it out""",
    3: f"{NO_TEXT} int\n{HERE}",
    True: f"{NO_TEXT} bool\n{HERE}",
    ("calm",): f"{NO_TEXT} tuple\n{HERE}",
    INLINE: f"""\
error[E509]: this engine takes no inline programs
{HERE}
  = start it with --intervention-inline""",
}
CLASH = """\
error[E406]: programs '{0}' and '{1}' meet at post_block[1]: calm.interv:{2} and calm.interv:{3}
  = in the request: {0} + {1}
  = the documents say 'conflict error' for programs of one request
  = ask for one of them, or have the document say another policy"""
TOO_WIDE = """\
error[E407]: these programs have 90 columns at post_block[1], 64 are possible
  = in the request: a + c*2 + b
  = ask for fewer programs at once"""
NO_FLAG = "error[E506]: 'intervention_report' is true or false, not {!r}"


def admitted(folder: Path, text: str = CALM, inline: bool = False) -> Admission:
    return Admission(carried(folder, text, inline=inline), config())


def refusal(one: Admission, extra: Mapping[str, Any]) -> str:
    with pytest.raises(IntervError) as caught:
        one.resolve(extra)
    return str(caught.value)


@pytest.mark.parametrize("asked", WRONG, ids=lambda asked: str(asked)[:24] or "empty")
def test_a_wrong_request_is_refused_with_its_alternatives(folder: Path, asked: Any) -> None:
    assert refusal(admitted(folder), {"intervention": asked}) == WRONG[asked]


def test_too_many_terms_are_refused(folder: Path) -> None:
    asked = "+".join(f"p{i}" for i in range(33))
    assert refusal(admitted(folder), {"intervention": asked}) == (
        "error[E109]: an expression has at most 32 terms, this one 33\n"
        " --> <request>:1:119\n"
        "  |\n"
        f"1 | {asked}\n"
        f"  | {' ' * 118}^^^ too many"
    )


def test_everything_wrong_is_said_at_once(folder: Path) -> None:
    text = CALM.replace("program quiet", "program loud").replace("steer w", "ablate w")
    text = text.replace(" scale 2", "")
    found = refusal(admitted(folder, text), {"intervention": "formal*-1 + loud*-2 + calm*3e38"})
    assert [line for line in found.splitlines() if line.startswith("error")] == [
        f"error[E405]: program 'formal' {NEGATIVE}",
        f"error[E405]: program 'loud' {NEGATIVE}",
        "error[E105]: 3e+38 times program 'calm' is too large",
    ]


def test_programs_that_meet_are_refused_under_conflict_error(folder: Path) -> None:
    one = admitted(folder, CALM + "conflict error\n")
    refused = refusal(one, {"intervention": "calm + formal"})
    assert refused == CLASH.format("calm", "formal", 7, 11)
    refused = refusal(one, {"intervention": "formal + calm"})
    assert refused == CLASH.format("formal", "calm", 11, 7)
    assert one.resolve({"intervention": "calm*0 + formal"}).terms == (("formal", 1.0),)
    both = one.resolve({"intervention": "calm + quiet"})
    assert both.terms == (("calm", 1.0), ("quiet", 1.0))


def test_what_may_go_over_is_multiplied_on(folder: Path) -> None:
    far = "program far { ablate v at post_block[1] strength 3 over }"
    push = "program push { steer v at post_block[1] scale 1e38 norm }"
    one = admitted(folder, f'interv 1\nvector v = "v.safetensors"\n{far}\n{push}\n')
    assert one.resolve({"intervention": "far*2.5"}).terms == (("far", 2.5),)
    # Whether a share of a stream's length can be held, only the stream says.
    assert one.resolve({"intervention": "push*3"}).terms == (("push", 3.0),)
    found = refusal(one, {"intervention": "far*-1 + push*-1"})
    assert found.startswith(f"error[E405]: program 'far' {NEGATIVE}\n")
    assert refusal(one, {"intervention": "far*2e38 + push"}) == (
        "error[E105]: 2e+38 times program 'far' is too large\n"
        "  = in the request: far*2e38 + push\n"
        "  = a scale is at most 3.4e38 (float32)"
    )


def test_more_columns_than_a_slot_has_are_refused(folder: Path) -> None:
    caps = "".join(f"  cap v at post_block[1] in [{i}, 100]\n" for i in range(30))
    wide = "".join(f"program {name} {{\n{caps}}}\n" for name in "abc")
    one = admitted(folder, f'interv 1\nvector v = "v.safetensors"\n{wide}')
    assert refusal(one, {"intervention": "a + c*2 + b"}) == TOO_WIDE
    assert one.resolve({"intervention": "a + b + c*0"}).key == "a*1.0 + b*1.0"


@pytest.mark.parametrize("flag", ["yes", "TRUE", 2, [], {}, "on"], ids=str)
def test_a_report_is_asked_for_with_true_or_false(folder: Path, flag: Any) -> None:
    asked = {"intervention": "calm", "intervention_report": flag}
    assert refusal(admitted(folder), asked) == NO_FLAG.format(flag)


@pytest.mark.parametrize("flag", [True, 1, "true", "1", 1.0], ids=repr)
def test_a_report_is_asked_for(folder: Path, flag: Any) -> None:
    one = admitted(folder)
    assert one.resolve({"intervention_report": flag}) == Choice("calm*1.0", (("calm", 1.0),), True)
    # The choice that is remembered is that of every request, reported or not.
    assert not one.resolve({"intervention": "calm", "intervention_report": False}).report
    assert one.resolve({"intervention": "calm", "intervention_report": flag}).report
    assert not one.resolve({"intervention": "calm", "intervention_report": "0"}).report


@pytest.mark.parametrize("extra", [{}, {"intervention": None}, {"theirs": "off"}], ids=str)
def test_the_default_applies_when_nothing_is_said(folder: Path, extra: dict[str, Any]) -> None:
    assert admitted(folder).resolve(extra) == Choice.of((("calm", 1.0),))
    without = CALM.replace("default calm\n", "")
    assert admitted(folder, without).resolve(extra) == Choice()


def test_a_multiplier_may_be_negative_where_a_program_only_steers(folder: Path) -> None:
    found = admitted(folder).resolve({"intervention": "calm*-1.5 + quiet * -2"})
    assert found == Choice("calm*-1.5 + quiet*-2.0", (("calm", -1.5), ("quiet", -2.0)))
    assert admitted(folder).resolve({"intervention": "off"}) == Choice()


def test_a_choice_is_remembered(folder: Path) -> None:
    one = admitted(folder, inline=True)
    for asked in ("calm*2", INLINE):
        first = one.resolve({"intervention": asked})
        assert one.resolve({"intervention": asked}) is first


def asked_for(number: int, inline: bool) -> str:
    return (
        INLINE.replace("post_block[1]", f"post_block[1] when prompt[{number}]")
        if inline
        else (f"calm*{number}")
    )


@pytest.mark.parametrize("inline", [False, True])
def test_what_is_remembered_is_bounded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, inline: bool
) -> None:
    monkeypatch.setattr(admission, "_PROGRAMS" if inline else "_EXPRESSIONS", 8)
    one = admitted(folder, inline=True)
    found = [one.resolve({"intervention": asked_for(i, inline)}) for i in range(1, 31)]
    assert len({choice.key for choice in found}) == 30
    assert len(one._programs if inline else one._expressions) <= 8
    # The newest is there still, the oldest is resolved anew.
    assert one.resolve({"intervention": asked_for(30, inline)}) is found[29]
    again = one.resolve({"intervention": asked_for(1, inline)})
    assert again == found[0]
    assert again is not found[0]


def test_a_refused_request_is_not_remembered(folder: Path) -> None:
    one = admitted(folder)
    for _ in range(2):
        assert refusal(one, {"intervention": "clam*1.5"}) == WRONG["clam*1.5"]
    assert len(one._expressions) == 0


def test_a_program_whose_name_begins_like_a_document(folder: Path) -> None:
    names = ("interv", "interv2", "interview")
    text = CALM + "".join(f"program {name} {{\n  steer v at post_block[1]\n}}\n" for name in names)
    one = admitted(folder, text, inline=True)
    for asked, terms in {
        "interv": (("interv", 1.0),),
        " interv * 2": (("interv", 2.0),),
        "interv + calm": (("interv", 1.0), ("calm", 1.0)),
        "interv*2\n": (("interv", 2.0),),
        "interv2": (("interv2", 1.0),),
        "interview*0.5 + interv": (("interview", 0.5), ("interv", 1.0)),
    }.items():
        assert one.resolve({"intervention": asked}).terms == terms
    for asked in (INLINE, f"\n # mine\n\n{INLINE}", INLINE.replace("interv 1", "interv\t1")):
        assert one.resolve({"intervention": asked}).key.startswith("inline ")


@given(asked=st.text("calmforquiet*+-.0123456789 {}\n", max_size=20) | st.text(max_size=8))
@settings(deadline=None, max_examples=200)
def test_any_text_is_a_choice_or_an_error(folder: Path, asked: str) -> None:
    refused = None
    try:
        terms = admitted(folder).resolve({"intervention": asked}).terms
        assert {name for name, _ in terms} <= {"calm", "formal", "quiet"}
    except IntervError as error:
        refused = error.code
    codes = ("E101", "E102", "E103", "E105", "E205", "E206", "E405", "E509")
    assert refused is None or refused in codes


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    ),
    max_leaves=6,
)


@given(asked=values.filter(lambda one: not isinstance(one, str | None)))
@settings(deadline=None, max_examples=200)
def test_any_value_is_a_choice_or_an_error(folder: Path, asked: Any) -> None:
    with pytest.raises(IntervError) as caught:
        admitted(folder, inline=True).resolve({"intervention": asked})
    assert caught.value.code[:2] in ("E1", "E2", "E5")
