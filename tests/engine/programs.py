"""Programs for engine tests, each as a spec and as the plain torch edit that it means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from interv.document.spec import Ablate, Cap, Program, SiteRef, Spec, Statement, Steer, VectorDecl
from tests.engine.oracle import Edit

KINDS = ("steer", "cap", "ablate", "mixed")
SITES = ("pre_attn", "post_attn", "post_block")


@dataclass(frozen=True)
class Directions:
    """Two directions that are not orthogonal, in the size of a model's stream."""

    v: torch.Tensor
    w: torch.Tensor

    @staticmethod
    def random(hidden_size: int, norm: float) -> Directions:
        rng = np.random.default_rng(7)
        v = rng.normal(size=hidden_size)
        w = rng.normal(size=hidden_size) + 0.6 * v
        scaled = [norm * x / np.linalg.norm(x) for x in (v, w)]
        return Directions(*(torch.tensor(x, dtype=torch.float32) for x in scaled))

    def save(self, folder: Path) -> None:
        for name in ("v", "w"):
            save_file({name: getattr(self, name).numpy()}, folder / f"{name}.safetensors")


VECTORS = tuple(VectorDecl(name=n, path=f"{n}.safetensors") for n in ("v", "w"))


def program(kind: str, site: str, layer: int, name: str = "") -> Program:
    """Return the program of a kind at one site."""
    at = SiteRef(name=site, layers=(layer,))
    steer: Statement = Steer(vector="v", at=at, scale=1.0)
    cap = Cap(vector="w", at=at, low=-0.02, high=0.05)
    ablate = Ablate(vector="v", at=at, strength=0.75)
    statements = {"steer": (steer,), "cap": (cap,), "ablate": (ablate,)}
    mixed = (steer, cap, ablate, Steer(vector="w", at=at, scale=-0.5), cap)
    return Program(name=name or f"{kind}_{site}_{layer}", statements=statements.get(kind, mixed))


def edit(kind: str, directions: Directions) -> Edit:
    """Return the same edit as plain sequential torch."""
    v, w = directions.v, directions.w

    def cap(h: torch.Tensor) -> torch.Tensor:
        unit = w / w.norm()
        p = (h @ unit)[..., None]
        return h + (p.clamp(-0.02, 0.05) - p) * unit

    def ablate(h: torch.Tensor) -> torch.Tensor:
        unit = v / v.norm()
        return h - 0.75 * (h @ unit)[..., None] * unit

    single: dict[str, Edit] = {"steer": lambda h: h + v, "cap": cap, "ablate": ablate}
    return single.get(kind, lambda h: cap(ablate(cap(h + v)) - 0.5 * w))


def save_document(spec: Spec, folder: Path, name: str = "document.json") -> Path:
    """Write a spec where its vectors are."""
    path = folder / name
    path.write_text(spec.model_dump_json())
    return path
