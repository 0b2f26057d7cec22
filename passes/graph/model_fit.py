"""What the model does not have: layers outside it, vectors and adapters that do not fit."""

from __future__ import annotations

from collections import Counter
from typing import Any

from interv.document.gates import late_gate
from interv.document.spec import LayerRange
from interv.document.wording import item_text, layer_text
from interv.errors import IntervError, Span
from interv.model import ModelFacts
from interv.passes.graph.directions import Adapter, Vector
from interv.passes.graph.ir import Node, gate_of, is_op, origins
from interv.passes.graph.layer_ranges import Sites
from interv.passes.graph.ops import OPS, emit, unit
from interv.vectors.numbering import HIDDEN_STATES


def place_of(node: Node) -> Sites:
    """Return the site, as written, of an edit, a gate or a capture."""
    start: Any = node if is_op(node, emit) else node.args[0]
    at: Sites = start.args[1]
    return at


def misfits(capture: Node, model: ModelFacts) -> list[IntervError]:
    """Return what of a capture does not fit a model: E208, E240, E241."""
    origin = origins(capture)[0]
    return _located(_site(place_of(capture), model), origin.at or origin.span)


def complaints(edit: Node, model: ModelFacts) -> list[IntervError]:
    """Return what of an edit does not fit a model: E208, E218, E229, E236, E240 to E244."""
    at, origin, gate = place_of(edit), origins(edit)[0], gate_of(edit)
    found = _located(_site(at, model), origin.at or origin.span)
    listed = not found
    spans = [origin.vector, origin.by]
    found += _operands(edit, at, model, spans, listed)
    if gate is not None:
        probed, elsewhere = place_of(gate), gate.args[0] is not edit.args[0]
        wrong = _site(probed, model) if elsewhere else []
        wrong = wrong or (_late(at, probed) if elsewhere and listed else [])
        found += _located(wrong, origin.probe_at or origin.span)
        found += _operands(gate, probed, model, [origin.probe], listed and not wrong)
    return found


def _located(errors: list[IntervError], span: Span | None) -> list[IntervError]:
    for error in errors:
        error.span = span
    return errors


def _operands(
    node: Node, at: Sites, model: ModelFacts, spans: list[Span | None], listed: bool
) -> list[IntervError]:
    """Check the vectors and adapters of an op, whose names stand at `spans`."""
    kinds = OPS[str(getattr(node.target, "__name__", ""))].args
    sources: list[Any] = [
        arg
        for kind, arg in zip(kinds, node.args, strict=True)
        if kind in ("direction", "rows", "map")
    ]
    found = []
    for source, span in zip(sources, spans, strict=False):
        value = (source.args[0] if is_op(source, unit) else source).args[0]
        check = _vector if isinstance(value, Vector) else _adapter
        found += _located(check(value, at, model, listed), span or origins(node)[0].span)
    return found


def _late(at: Sites, probed: Sites) -> list[IntervError]:
    first = min(at.expand(), key=lambda site: site.order)
    gate = probed.expand()[0]
    if gate.order <= first.order:
        return []
    return [late_gate(gate, first, None, None)]


def _site(at: Sites, model: ModelFacts) -> list[IntervError]:
    layers = [site.layer for site in at.expand()]
    twice = sorted(n for n, times in Counter(layers).items() if times > 1)
    found = [error for item in at.ref.layers for error in _item_complaints(item, at, model)]
    if twice and not found:
        found.append(IntervError("E241", f"'{at}' lists layer {layer_text(twice)} twice"))
    return found


def _item_complaints(
    item: int | str | LayerRange, at: Sites, model: ModelFacts
) -> list[IntervError]:
    ends = _ends(item)
    outside = [n for n in ends if not -model.num_layers <= n < model.num_layers]
    last = model.num_layers - 1
    if outside:
        here = f"layers here: 0..{last}, or -{model.num_layers}..-1 from the end"
        text = f"'{model.name}' has no layer {outside[0]}: it has {model.num_layers} blocks"
        return [IntervError("E240", text, notes=[here])]
    if not at.layers(item):
        text = f"'{item_text(item)}' is an empty range"
        first, end = (at.layers(item).start, at.layers(item).stop - 1)
        helps = [f"layer {first} comes after layer {end}; did you mean '{end}..{first}'?"]
        return [IntervError("E208", text, helps=helps)]
    return []


def _ends(item: int | str | LayerRange) -> tuple[int, ...]:
    if isinstance(item, LayerRange):
        return (item.first, item.last)
    return (item,) if isinstance(item, int) else ()


def _vector(vector: Vector, at: Sites, model: ModelFacts, listed: bool) -> list[IntervError]:
    known, found = vector.directions, []
    if known.width != model.hidden_size:
        text = f"vector '{vector}' is {known.width} wide, '{model.name}' {model.hidden_size}"
        helps = ["a vector fits the model that it was made on"]
        found.append(IntervError("E242", text, notes=_hint(vector), helps=helps))
    found += _extent(vector, model)
    if listed:
        found += _lost(f"vector '{vector}' has no direction", vector, at, _hint(vector))
    return found


def _extent(vector: Vector, model: ModelFacts) -> list[IntervError]:
    """Check that a bank is for as many blocks as the model has, or for some of them."""
    known, blocks = vector.directions, model.num_layers
    if known.rows not in (None, blocks):
        held = "rows"
        if known.numbering == HIDDEN_STATES:
            held = "blocks' hidden states"
        text = f"vector '{vector}' has {known.rows} {held}, '{model.name}' has {blocks}"
        notes, helps = _one_more(vector, known.rows or 0, blocks)
        return [IntervError("E243", f"{text} blocks", notes=[*_hint(vector), *notes], helps=helps)]
    beyond = [layer for layer in vector.layers or () if layer >= blocks]
    if not beyond:
        return []
    plural = "s" if len(beyond) > 1 else ""
    named = f"layer{plural} {layer_text(beyond)}, '{model.name}' has {blocks} blocks"
    text = f"vector '{vector}' has a direction for {named}"
    notes, helps = _one_more(vector, beyond[-1] + 1, blocks)
    return [IntervError("E236", text, notes=[*_hint(vector), *notes], helps=helps)]


def _one_more(vector: Vector, held: int, blocks: int) -> tuple[list[str], list[str]]:
    """Say what one row too many means, and both ways out; nothing where the file was numbered."""
    if held != blocks + 1 or vector.directions.numbering:
        return [], []
    name = vector.path.name
    notes = [
        "one more than blocks is how Transformers numbers hidden_states: 0 is the embedding, "
        "i + 1 the output of block i"
    ]
    helps = [
        f'if that is so, say it in the document: vector {vector} = "…" rows {HIDDEN_STATES}',
        f"or in the file: interv vectors convert {name} NEW.safetensors --from-hidden-states",
    ]
    return notes, helps


def _lost(what: str, value: Vector | Adapter, at: Sites, notes: list[str]) -> list[IntervError]:
    """Say which layers of a site a file has nothing for."""
    held = value.layers
    lost = [site.layer for site in at.expand() if held is not None and site.layer not in held]
    if not lost:
        return []
    plural = "s" if len(lost) > 1 else ""
    text = f"{what} for layer{plural} {layer_text(lost)}"
    has = f"layers of '{value.path.name}': {layer_text(held or ())}"
    return [IntervError("E229", text, notes=[has, *notes])]


def _hint(vector: Vector) -> list[str]:
    made_for = vector.directions.hint
    return [f"the file was made for {made_for}"] if made_for else []


def _adapter(adapter: Adapter, at: Sites, model: ModelFacts, listed: bool) -> list[IntervError]:
    loaded, found = adapter.loaded, []
    if loaded.width != model.hidden_size:
        text = f"adapter '{adapter}' is {loaded.width} wide, '{model.name}' {model.hidden_size}"
        helps = ["an adapter fits the model that it was trained on"]
        found.append(IntervError("E242", text, helps=helps))
    if loaded.site is not None and loaded.site != at.ref.name:
        text = f"adapter '{adapter}' was trained at {loaded.site}, not at {at.ref.name}"
        helps = [f"apply it at {loaded.site}"]
        found.append(IntervError("E244", text, notes=list(loaded.notes), helps=helps))
    what = "map" if adapter.linear else "rows"
    return found + (_lost(f"adapter '{adapter}' has no {what}", adapter, at, []) if listed else [])
