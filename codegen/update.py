"""The canonical update in torch, on the tables of a bundle: the oracle of every kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interv.codegen.bundle import Column, SiteTable
from interv.document.wording import list_names
from interv.errors import IntervError, suggest
from interv.passes.graph.canonical import probe, update
from interv.passes.graph.column import Form, Kind, Mode
from interv.passes.graph.directions import Map
from interv.passes.placing.plan import GATES


def fused_update(
    h: Tensor,
    table: SiteTable,
    program: str,
    masks: Tensor,
    kept: Tensor | None = None,
    index: Tensor | None = None,
) -> Tensor:
    """Return the stream after a program's update at one site.

    `h` is the stream (hidden plus residual) `[T, H]` in any float dtype, `masks` bool `[S, T]`,
    row s saying which tokens selector s of the bundle holds for, `kept` `[T, G]` the weights of
    gates of earlier sites, to which those of this site are written, `index` `[T]` how many
    generated tokens come before each, for what decays. Arithmetic is done in at
    least fp32 and rounded to the dtype of `h` once; rows without an edit keep their bits.

    Raises IntervError E205 for a program that has no edit at the site.
    """
    if program not in table.programs:
        raise _unknown(program, table)
    columns = table.programs[program]
    bank = tuple(torch.from_numpy(table.bank.copy()).unbind())  # V of [H]
    chosen, forms = [], [form_of(column, table.maps) for column in columns]
    for column in columns:
        mask = masks[column.selector]
        if column.gate >= GATES:
            assert kept is not None
            mask = mask * kept[:, column.gate - GATES]
        if column.mode & Mode.DECAY:
            assert index is not None
            mask = mask * torch.exp2(column.alpha * index.double())
        chosen.append(mask)
    for j, column in enumerate(columns):
        if column.kind == Kind.GATE and column.store >= 0:
            assert kept is not None
            kept[:, column.store] = probe(h, bank, chosen, forms, j).to(kept.dtype)
    return update(h, bank, chosen, forms)


def _unknown(program: str, table: SiteTable) -> IntervError:
    return IntervError(
        "E205",
        f"no program '{program}' has an edit at {table.site}",
        notes=[f"programs that have: {list_names(table.programs)}"],
        helps=suggest(program, table.programs),
    )


def form_of(column: Column, maps: Sequence[Map] = ()) -> Form:
    """Return a bundle's column as the op takes it; `maps` are those of its site."""
    return Form(
        column.a,
        column.b,
        alpha=column.alpha,
        beta=column.beta,
        strength=column.strength,
        low=column.low,
        high=column.high,
        sees=column.sees,
        kind=Kind(column.kind),
        gate=column.gate if column.gate < GATES else -1,
        block=column.block,
        mode=Mode(column.mode),
        map=maps[column.store] if column.kind == Kind.LINEAR else None,
    )
