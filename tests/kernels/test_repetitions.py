"""The search for the last repetition of each key, in the forms of a CPU and of a GPU."""

from __future__ import annotations

import os

import pytest
import torch

from interv.kv import scoring

# Triton reads the variable when it is imported: `test_triton.py` runs this file under it.
FORMS = ["tiled", "triton"] if "TRITON_INTERPRET" in os.environ else ["tiled"]


def wanted(unit: torch.Tensor, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Row by row over the whole matrix."""
    cosine = unit @ unit.mT
    cosine.diagonal(0, 1, 2).zero_()
    last = torch.zeros(unit.shape[:2], dtype=torch.int64)
    for head, row in torch.cartesian_prod(*map(torch.arange, unit.shape[:2])).tolist():
        above = (cosine[head, row] > threshold).nonzero().flatten().tolist()
        last[head, row] = above[-1] if above else 0
    return last, cosine.gather(-1, last[..., None])[..., 0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("threshold", [-0.5, 0.2, 0.5, 0.9])
@pytest.mark.parametrize(("length", "size"), [(9, 16), (64, 20), (150, 32)])
@pytest.mark.parametrize("shared", [0.0, 0.7, 4.0])
def test_repetitions_are_those_of_the_whole_matrix(
    form: str, threshold: float, length: int, size: int, shared: float
) -> None:
    """However alike keys are, so that they are found in the first columns, in later ones, never."""
    torch.manual_seed(length + size)
    keys = torch.randn(3, length, size) + shared * torch.randn(3, 1, size)
    unit = keys / keys.norm(dim=-1, keepdim=True)
    if form == "triton":
        from interv.kv.triton_repetitions import last_repetitions

        last, cosine = last_repetitions(unit, threshold)
    else:
        last, cosine = scoring.last_repetitions(unit, threshold, tile=2000)
    rows, values = wanted(unit, threshold)
    assert torch.equal(last, rows)
    torch.testing.assert_close(cosine, values, atol=1e-6, rtol=0)
