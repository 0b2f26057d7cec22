"""Documents written in Python: the same spec as the text, and the same errors."""

from __future__ import annotations

from pathlib import Path

import pytest

import interv
from interv.builder import (
    all_of,
    everything,
    gate,
    generated,
    layers,
    new_document,
    post_attn,
    post_block,
    pre_attn,
    prompt,
    token,
)
from interv.document.selectors import selector_text
from interv.document.spec import LayerRange
from interv.errors import IntervError

FOLDER = Path(__file__).parent / "valid"
VALID = FOLDER / "everything.interv"


def test_the_same_document_as_the_text() -> None:
    doc = new_document()
    calm = doc.vector("calm", "vectors/calm.gguf")
    anger = doc.vector("anger", "vectors/anger.safetensors", unit=True)
    probe = doc.vector("probe", "vectors/probe.safetensors", key="probe.14")
    doc.adapter("style", "adapters/style-reft")
    acts = doc.sink("acts", "filesystem", "acts/", layout="packed")
    doc.kv("r1kv", budget=512, buffer=64, **{"lambda": 0.1})
    program = doc.program("calm", conflict="sequential")
    program.steer(calm, at=post_block[layers(10, 20)], scale=1.5, when=generated)
    last_or_later = prompt[-1] | generated
    program.cap(anger, at=post_attn[12], low=-1.0, high=2.5, when=last_or_later)
    program.ablate(anger, at=post_block[...], strength=1.0)
    read = gate(probe, post_block[14], sharpness=8, threshold=0.5)
    program.steer(calm, at=post_block[24], scale=4, gate=read)
    program.capture(at=post_block[12, 20], tokens=prompt[-1], to=acts, rank=64)
    doc.program("long", kv=True)
    doc.program("short", conflict="error", kv=False)
    doc.conflict("sum")
    doc.default(program)
    assert doc.spec() == interv.load_document(VALID).spec
    assert interv.load_text(interv.to_text(doc.spec())).spec == doc.document().spec


def test_the_same_edits_as_the_text() -> None:
    doc = new_document()
    calm = doc.vector("calm", "calm.gguf")
    anger = doc.vector("anger", "anger.gguf")
    probe = doc.vector("probe", "probe.pt")
    program = doc.program("edits")
    here = post_block[layers(10, 20)]
    program.steer(calm, at=here, scale=4, keep_norm=True, when=generated)
    program.steer(calm, at=here, when=prompt)
    read = gate(probe, sharpness=8, threshold=0.5)
    program.steer(calm, at=post_block[22], keep_norm=True, gate=read)
    program.replace(anger, at=post_block[12], by=calm, strength=0.5)
    read = gate(probe, post_block[-4])
    last = post_attn[layers(-3, -1)]
    program.replace("anger", at=last, by="calm", when=prompt[-1], gate=read)
    read = gate(probe, pre_attn[30], threshold=2)
    program.replace(calm, at=post_block[30], scale=12, strength=0.25, gate=read)
    program.replace(calm, at=post_block[...])
    assert doc.spec() == interv.load_document(FOLDER / "edits.interv").spec
    assert interv.load_text(interv.to_text(doc.spec())).spec == doc.document().spec


def test_the_same_amounts_as_the_text() -> None:
    doc = new_document()
    calm = doc.vector("calm", "calm.gguf")
    norm = doc.vector("norm", "norm.gguf")
    over = doc.vector("over", "over.pt")
    program = doc.program("amounts")
    here = post_block[layers(10, 20)]
    program.steer(calm, at=here, scale=0.1, by_norm=True, when=generated)
    program.steer(calm, at=here, by_norm=True, keep_norm=True)
    program.steer(norm, at=post_block[3], scale=0.25, by_norm=True, keep_norm=True)
    program.ablate(calm, at=post_block[...], keep_norm=True)
    program.ablate(over, at=post_block[layers(12, 20)], strength=1.5, over=True)
    read = gate(over, absolute=True, cosine=True)
    program.ablate(over, at=post_block[21], over=True, keep_norm=True, gate=read)
    read = gate(norm, absolute=True, above=-1, below=2.5)
    program.ablate(norm, at=post_block[22], strength=0.5, gate=read)
    read = gate(calm, pre_attn[7], cosine=True, sharpness=30, threshold=0.25)
    program.steer(calm, at=post_block[30], gate=read)
    program.steer(calm, at=post_block[30], gate=gate(calm, pre_attn[7], cosine=True, below=0.04))
    assert doc.spec() == interv.load_document(FOLDER / "amounts.interv").spec
    assert interv.load_text(interv.to_text(doc.spec())).spec == doc.document().spec


def test_layers_in_every_spelling() -> None:
    both = LayerRange(first=10, last=20)
    assert pre_attn["10..20", -1].layers == (both, -1)
    assert pre_attn[layers(10, 20), -1].layers == (both, -1)
    assert pre_attn[...] == pre_attn["*"]


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        (prompt[2:8] & ~token(1, 2), "prompt[2:8] and not token(1, 2)"),
        (prompt & generated & everything, "prompt and generated and all"),
        (prompt & (generated & everything), "prompt and (generated and all)"),
        (all_of(prompt & generated, everything), "(prompt and generated) and all"),
        (~(prompt | generated[:3]), "not (prompt or generated[:3])"),
    ],
)
def test_selectors_combine(selector: object, text: str) -> None:
    assert str(selector) == text == selector_text(selector.selector)


def message(call: object) -> str:
    with pytest.raises(IntervError) as caught:
        call()
    return str(caught.value)


def test_errors() -> None:
    program = new_document().program("p")
    assert message(lambda: post_block[10:20]) == (
        "error[E211]: a slice of layers would hide whether its end is included\n"
        "  = write layers(10, 20), which includes both ends"
    )
    assert message(lambda: prompt[0, 4:8]) == (
        "error[E211]: in a list of positions a slice would hide whether its end is included\n"
        '  = write a range as a text, both ends included: prompt[0, "4..8", -1]'
    )
    assert message(lambda: prompt["4:8"]) == "error[E211]: '4:8' is not a range of positions"
    assert message(lambda: prompt[(5,)]) == (
        "error[E211]: document: a single position is not a list: it is of kind 'at'\n"
        "  = found: {'phase': 'prompt', 'items': [5]}"
    )
    assert message(lambda: prompt[::0]) == ("error[E207]: step 0 is out of range\n  = in step")
    assert message(lambda: post_block["a..b"]) == "error[E211]: 'a..b' is not a range of layers"
    assert message(lambda: program.ablate("v", at=post_block[1], strength=3)) == (
        "error[E207]: strength 3 is out of range\n  = in strength\n"
        "  = say that it is meant to take away more than all: strength 3 over"
    )
    assert message(lambda: program.ablate("v", at=post_block[1], strength=-3, over=True)) == (
        "error[E207]: strength -3 is out of range\n  = in strength"
    )
    for call in (
        lambda: new_document().program("p", conflict="merge"),
        lambda: new_document().conflict("merge"),
    ):
        assert message(call) == (
            "error[E211]: 'merge' is not a conflict policy\n  = in conflict\n"
            "  = policies: error, priority, sequential, sum, joint"
        )
    assert message(lambda: new_document().program("p", kv="maybe")) == (
        "error[E211]: 'kv' of a program is on or off, not 'maybe'\n  = in kv\n"
        "  = a policy is declared outside of programs"
    )


def test_a_document_is_checked() -> None:
    doc = new_document()
    doc.program("p").steer("calm", at=post_block[1], when=prompt & generated)
    doc.default("q")
    assert message(doc.document) == (
        "error[E202]: no vector is called 'calm'\n  = no vector is declared\n"
        "  = in <spec>: programs.0.statements.0.vector\n\n"
        "error[E209]: no token can ever match 'prompt and generated'\n"
        "  = in <spec>: programs.0.statements.0.when\n\n"
        "error[E205]: no program is called 'q'\n  = programs here: p\n  = in <spec>: default"
    )


def test_a_concept_is_checked() -> None:
    doc = new_document()
    calm = doc.vector("calm", "calm.gguf")
    doc.program("p").replace(calm, at=post_block[1], by="joy", scale=2)
    assert message(doc.document) == (
        "error[E202]: no vector is called 'joy'\n  = vectors here: calm\n"
        "  = in <spec>: programs.0.statements.0.by\n\n"
        "error[E107]: replace … by has no scale\n"
        "  = in <spec>: programs.0.statements.0.scale\n"
        "  = leave it out; 'strength' says how much of the first vector is replaced"
    )


def test_public_names_are_there_and_lazy() -> None:
    assert [name for name in interv.__all__ if not hasattr(interv, name)] == []
    with pytest.raises(AttributeError, match="module 'interv' has no attribute 'nothing'"):
        _ = interv.nothing
