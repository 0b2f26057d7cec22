"""Caps that hold at once are solved alike everywhere: as many sweeps, ended by the same step."""

from __future__ import annotations

import re
from importlib import resources

import torch

from interv.codegen.kernels import reference, triton_columns
from interv.passes.graph.cyclic_projections import SWEEPS, still, swept


def in_c(name: str) -> str:
    """Return a constant of the C form, as its source has it."""
    source = resources.files("interv.codegen.kernels").joinpath("update.c").read_text()
    (value,) = re.findall(rf"^#define {name} (\S+)$", source, re.MULTILINE)
    return str(value)


def test_all_forms_sweep_as_often_and_end_at_one_step() -> None:
    assert {int(in_c("JOINT_SWEEPS")), triton_columns.SWEEPS.value, reference.SWEEPS} == {SWEEPS}
    steps = {float.fromhex(in_c("JOINT_STEP")), triton_columns.SETTLED.value, reference.JOINT_STEP}
    assert steps == {still(torch.float32)} == {2.0**-22}


def test_sweeps_end_at_the_rounding_of_their_dtype() -> None:
    """Two directions at 0.6: each sweep leaves 0.36 of the distance, float64 has 2⁻⁵¹ to go."""
    gram = torch.tensor([[0.0, 0.6], [0.6, 0.0]], dtype=torch.float64)
    p = torch.tensor([[3.0, -2.0], [0.5, 4.0]], dtype=torch.float64)
    on = torch.ones(2, 2, dtype=torch.bool)
    # Both caps are met at a bound: c is the solution of two equations.
    bound = torch.tensor([1.0, 1.0], dtype=torch.float64)
    whole = gram + torch.eye(2, dtype=torch.float64)
    exact = torch.linalg.solve(whole, (bound - p).T).T
    for dtype in (torch.float64, torch.float32):
        c = swept(p.to(dtype), gram.to(dtype), [1.0, 1.0], [1.0, 1.0], on)
        assert c.dtype == dtype
        assert ((c - exact).abs().max() <= 4 * still(dtype) * p.abs().max()).all()


def test_a_cap_that_does_not_count_takes_no_part() -> None:
    gram = torch.tensor([[0.0, 0.6], [0.6, 0.0]])
    on = torch.tensor([[True, True], [True, False], [False, False]])
    c = swept(torch.tensor([[3.0, 3.0]] * 3), gram, [0.0, 0.0], [1.0, 1.0], on)
    torch.testing.assert_close(c, torch.tensor([[-1.25, -1.25], [-2.0, 0.0], [0.0, 0.0]]))
