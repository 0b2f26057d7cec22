"""Where a gate is read: at one layer, and no later than the edit that it scales."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from interv.document.document import Document, SpecPath
from interv.document.sites import Site
from interv.document.spec import (
    Ablate,
    Apply,
    Cap,
    Capture,
    LayerRange,
    Replace,
    Rotate,
    SiteRef,
    Statement,
    Steer,
)
from interv.document.steps import step_faults
from interv.document.wording import path_notes
from interv.errors import IntervError, Label, Span

AnyEdit: TypeAlias = Steer | Cap | Ablate | Replace | Rotate | Apply


def gate_faults(document: Document, path: SpecPath, statement: Statement) -> Iterator[IntervError]:
    """Yield E217, E218, E861 and E862 for the gate of the statement at `path`, without a model.

    Layers that count from different ends are compared when the model is known.
    """
    if isinstance(statement, Capture) or statement.gate is None:
        return
    yield from step_faults(document, (*path, "gate"), statement.gate)
    if statement.gate.site is None:
        return
    site, where = statement.gate.site, (*path, "gate", "site")
    layer = site.layers[0]
    if len(site.layers) > 1 or not isinstance(layer, int):
        yield _many_layers(document, where, statement, site)
        return
    read = Site(site.name, layer)
    edited = [Site(statement.at.name, first) for first in _first_layers(statement.at, layer < 0)]
    before = [one for one in edited if one.order < read.order]
    if before:
        first = min(before, key=lambda one: one.order)
        spans = document.span(*where), document.span(*path, "at")
        yield late_gate(read, first, *spans, path_notes(document, where))


def late_gate(
    gate: Site, edit: Site, span: Span | None, at: Span | None, notes: Sequence[str] = ()
) -> IntervError:
    """Return E218: a gate that a forward pass reaches after the edit that it scales.

    `span` is where the gate says its site, `at` where the edit does.
    """
    return IntervError(
        "E218",
        f"the gate at {gate} comes after the edit at {edit}",
        span,
        "read too late",
        notes=notes,
        helps=(f"a gate is read before what it scales: at {edit} or earlier",),
        more=(Label(at, "edited here"),) if at else (),
    )


def _many_layers(document: Document, where: SpecPath, edit: AnyEdit, site: SiteRef) -> IntervError:
    word = f"{edit.op} '{edit.adapter if isinstance(edit, Apply) else edit.vector}'"
    return IntervError(
        "E217",
        f"the gate of {word} reads {_how_many(site)}, a gate at another site reads one",
        document.span(*where),
        "not one layer",
        notes=path_notes(document, where),
        helps=("name one layer; without its own 'at' a gate is read at every site of its edit",),
    )


def _how_many(place: SiteRef) -> str:
    """Say how many layers a place has, as far as that is known without a model."""
    count = 0
    for item in place.layers:
        if isinstance(item, LayerRange) and (item.first < 0) != (item.last < 0):
            return "a range of layers"
        if isinstance(item, str):
            return "every layer"
        count += item.last - item.first + 1 if isinstance(item, LayerRange) else 1
    return f"{count} layers" if count > 1 else "a range of layers"


def _first_layers(place: SiteRef, from_end: bool) -> Iterator[int]:
    """Yield the first layer of every item of a place that counts from the same end."""
    for item in place.layers:
        first = item.first if isinstance(item, LayerRange) else 0 if item == "*" else item
        if (first < 0) == from_end:
            yield first
