"""Adapters as the tools that train them save them, and what loading a wrong one says."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from interv.document.spec import AdapterDecl
from interv.errors import IntervError
from interv.vectors import load_adapter

LOREFT = "<class 'pyreft.interventions.LoreftIntervention'>"


def loreft_state(width: int, rank: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the state of a LoReFT intervention: a bfloat16 source, a float32 rotation."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rank, width, generator=generator).to(torch.bfloat16)
    bias = torch.randn(rank, generator=generator).to(torch.bfloat16)
    square = torch.randn(width, rank, generator=generator)
    return {"weight": weight, "bias": bias, "rotate_layer": torch.linalg.qr(square)[0]}


def representation(layer: object, component: str = "block_output", rank: object = 2) -> list[Any]:
    """Return an intervention as pyvene writes it: a list of 13 fields."""
    return [layer, component, "pos", 1, rank, *[None] * 8]


def reft_config(representations: list[Any], width: int = 8, **more: Any) -> dict[str, Any]:
    """Return the config that pyvene writes beside its interventions."""
    count = len(representations)
    return {
        "intervention_constant_sources": [True] * count,
        "intervention_dimensions": [width] * count,
        "intervention_types": [LOREFT] * count,
        "mode": "parallel",
        "representations": representations,
        "sorted_keys": None,
        "transformers_version": "4.40.0",
        **more,
    }


def file_name(layer: int, component: str = "block_output") -> str:
    """Return the name that pyvene gives the file of an intervention."""
    return f"intkey_layer_{layer}_comp_{component}_unit_pos_nunit_1#0.bin"


def reft_folder(
    folder: Path,
    states: dict[int, dict[str, torch.Tensor]],
    component: str = "block_output",
    **more: Any,
) -> Path:
    """Write a pyreft folder with one intervention a layer."""
    folder.mkdir(parents=True)
    for layer, state in states.items():
        torch.save(state, folder / file_name(layer, component))
    items = [representation(layer, component) for layer in states]
    (folder / "config.json").write_text(json.dumps(reft_config(items, **more)))
    return folder


def lm_steer_state(steers: int, width: int, rank: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the projections of LM-Steer, stacked by steer, as it keeps them: parameters."""
    generator = torch.Generator().manual_seed(seed)
    names = ("projector1", "projector2")
    return {
        name: torch.nn.Parameter(torch.randn(steers, width, rank, generator=generator))
        for name in names
    }


def lm_steer_file(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """Write a checkpoint as LM-Steer's training does: its arguments, the tensors, the steps."""
    arguments = Namespace(model_name="gpt2", epsilon=0.001, rank=2, cuda=True, lr=None)
    torch.save([arguments, state, 1000], path)
    return path


def refused(folder: Path, path: str = "style") -> str:
    """Return what loading adapter 'style' is refused with."""
    with pytest.raises(IntervError) as caught:
        load_adapter(AdapterDecl(name="style", path=path), folder)
    return str(caught.value)


def lines(first: str, *parts: str) -> str:
    """Return an error about adapter 'style': its code and message, then its notes."""
    code, message = first.split(" ", 1)
    return "\n  = ".join((f"error[{code}]: adapter 'style': {message}", *parts))
