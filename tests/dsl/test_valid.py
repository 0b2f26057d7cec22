"""Valid programs: what they mean, and `valid/NAME.fmt`, what the formatter makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from interv.document.spec import At, Cap, Gate, InPhase, LayerRange, Or, Replace, SiteRef, Steer
from interv.dsl.formatter import format_text
from interv.dsl.printer import print_spec
from interv.dsl.read import read_spec
from interv.errors import Source
from interv.load import load_text

FOLDER = Path(__file__).parent / "valid"
VALID = sorted(FOLDER.glob("*.interv"))


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_formatted(path: Path, golden: Callable[[Path, str], None]) -> None:
    before = path.read_text()
    after = format_text(before)
    golden(path.with_suffix(".fmt"), after)
    assert format_text(after) == after
    spec = load_text(before).spec
    assert load_text(after).spec == spec
    assert load_text(print_spec(spec)).spec == spec


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_formatting_keeps_every_comment(path: Path) -> None:
    def comments(text: str) -> list[str]:
        return sorted(line.split("#", 1)[1].strip() for line in text.splitlines() if "#" in line)

    assert comments(format_text(path.read_text())) == comments(path.read_text())


def test_meaning() -> None:
    spec = load_text((FOLDER / "everything.interv").read_text()).spec
    steer, cap, ablate, gated, capture = spec.programs[0].statements
    generated = InPhase(phase="generated")
    at = SiteRef(name="post_block", layers=(LayerRange(first=10, last=20),))
    assert steer == Steer(vector="calm", at=at, scale=1.5, when=generated)
    last_or_later = Or(terms=(At(phase="prompt", index=-1), generated))
    place = SiteRef(name="post_attn", layers=(12,))
    assert cap == Cap(vector="anger", at=place, low=-1.0, high=2.5, when=last_or_later)
    assert ablate.at.layers == ("*",)
    read_at = SiteRef(name="post_block", layers=(14,))
    assert gated.gate == Gate(vector="probe", site=read_at, sharpness=8.0, threshold=0.5)
    assert (capture.to, capture.rank) == ("acts", 64)
    assert spec.sinks[0].args == ("acts/",)
    assert spec.sinks[0].options == (("layout", "packed"),)
    assert [one.kv for one in spec.programs] == [None, True, False]
    assert spec.kv.options == (("budget", 512), ("buffer", 64), ("lambda", 0.1))


def test_meaning_of_the_edits() -> None:
    spec = load_text((FOLDER / "edits.interv").read_text()).spec
    kept, plain, gated, half, concept, mixed, all_of_it = spec.programs[0].statements
    at = SiteRef(name="post_block", layers=(LayerRange(first=10, last=20),))
    generated, prompt = InPhase(phase="generated"), InPhase(phase="prompt")
    assert kept == Steer(vector="calm", at=at, scale=4, keep_norm=True, when=generated)
    assert plain == Steer(vector="calm", at=at, when=prompt)
    assert gated.gate == Gate(vector="probe", sharpness=8, threshold=0.5)
    assert gated.keep_norm
    here = SiteRef(name="post_block", layers=(12,))
    assert half == Replace(vector="anger", by="calm", at=here, strength=0.5)
    assert (concept.vector, concept.by, concept.strength) == ("anger", "calm", 1)
    assert concept.gate.site == SiteRef(name="post_block", layers=(-4,))
    last = SiteRef(name="post_block", layers=(30,))
    read = Gate(vector="probe", site=SiteRef(name="pre_attn", layers=(30,)), threshold=2)
    assert mixed == Replace(vector="calm", at=last, scale=12, strength=0.25, gate=read)
    assert all_of_it == Replace(vector="calm", at=SiteRef(name="post_block", layers=("*",)))


def test_clauses_in_any_order() -> None:
    one = "interv 1 program p { cap v at post_block[1] in [0, 1] strength 0.5 when prompt }"
    two = "interv 1 program p { cap v when prompt strength 0.5 in [0, 1] at post_block[1] }"
    assert read_spec(Source("one", one)) == read_spec(Source("two", two))


def test_spans_point_at_the_parts() -> None:
    text = (
        'interv 1\nvector v = "v.gguf"\n'
        "program p { steer v at post_block[10..20, -1] scale 2 when prompt or not generated }\n"
    )
    document = load_text(text)
    statement = ("programs", 0, "statements", 0)

    def shown(*path: str | int) -> str:
        span = document.span(*path)
        assert span is not None
        return text[span.start : span.end]

    assert shown("vectors", 0, "path") == '"v.gguf"'
    assert shown(*statement, "vector") == "v"
    assert shown(*statement, "at") == "post_block[10..20, -1]"
    assert shown(*statement, "at", "layers", 0) == "10..20"
    assert shown(*statement, "at", "layers", 1) == "-1"
    assert shown(*statement, "scale") == "2"
    assert shown(*statement, "when") == "prompt or not generated"
    assert shown(*statement, "when", "terms", 1) == "not generated"
    assert shown(*statement).startswith("steer v at")
    assert shown("programs", 0).endswith("}")
