"""The canonical update in torch, on the tables of a bundle: the oracle of every kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from interv.codegen.bundle import Column, SiteTable
from interv.passes.columns import Form
from interv.passes.ops import update


def fused_update(h: Tensor, table: SiteTable, program: str, masks: Tensor) -> Tensor:
    """Return the stream after a program's update at one site.

    `h` is the stream (hidden plus residual) `[T, H]` in any float dtype, `masks` bool `[S, T]`,
    row s saying which tokens selector s of the bundle holds for. Arithmetic is done in at least
    fp32 and rounded to the dtype of `h` once; rows without an edit keep their bits. A program
    without an edit at the site returns `h` itself.
    """
    columns = table.programs.get(program, ())
    if not columns:
        return h
    bank = torch.from_numpy(table.bank.copy())  # [V, H]
    chosen = [masks[column.selector] for column in columns]
    return update(h, tuple(bank.unbind()), chosen, [form_of(column) for column in columns])


def form_of(column: Column) -> Form:
    """Return the scalars of a bundle's column as the op takes them."""
    return Form(
        column.a,
        column.b,
        alpha=column.alpha,
        beta=column.beta,
        strength=column.strength,
        low=column.low,
        high=column.high,
        sees=column.sees,
    )
