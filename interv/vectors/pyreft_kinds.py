"""The interventions of pyreft by their formulas, each a low-rank update of the stream.

Their classes stand in pyreft's `interventions.py`; Wu et al., 2024 (arXiv:2404.03592). R is
`rotate_layer` [H, r], W and b are `learned_source`, W₂ and b₂ `proj_layer`, s a constant [r]:

    LoReFT    h + (W h + b − R h) Rᵀ          NoReFT    h + (W h + b − W₂ h − b₂) W₂
    DiReFT    h + (W h + b) Rᵀ                NodiReFT  h + (W h + b) W₂
    ConsReFT  h + (s − R h) Rᵀ                LobiReFT  h + s Rᵀ
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from interv.errors import IntervError
from interv.vectors.arrays import Arrays
from interv.vectors.rotation import NAMES as ROTATION, rotation
from interv.vectors.updates import Array, LowRankParts
from interv.vectors.words import list_text

PREFIX = "learned_source."
# pyvene's sizes of an intervention; they say again what the shapes say.
SIZES = frozenset({"embed_dim", "interchange_dim"})


@dataclass(frozen=True, slots=True)
class Kind:
    """What an intervention computes.

    `rotates` says that it writes an orthonormal rotation, not a projection of its own; `learns`
    that its source reads the stream, not a constant; `compares` that what the rotation or the
    projection reads is subtracted.
    """

    title: str
    rotates: bool
    learns: bool
    compares: bool

    @property
    def tensors(self) -> tuple[str, ...]:
        """Return the tensors that a file of it may hold, without prefix, as people name them."""
        written = ("rotate_layer",) if self.rotates else ("proj_layer.bias", "proj_layer.weight")
        learned = ("bias", "weight") if self.learns else ("learned_source",)
        return tuple(sorted((*learned, *written)))


LOREFT = Kind("LoReFT", rotates=True, learns=True, compares=True)
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "LoreftIntervention": LOREFT,
        # They differ in how training starts.
        "LoreftIntervention_IdentityInit": LOREFT,
        "NoreftIntervention": Kind("NoReFT", rotates=False, learns=True, compares=True),
        "DireftIntervention": Kind("DiReFT", rotates=True, learns=True, compares=False),
        "NodireftIntervention": Kind("NodiReFT", rotates=False, learns=True, compares=False),
        "ConsreftIntervention": Kind("ConsReFT", rotates=True, learns=False, compares=True),
        "LobireftIntervention": Kind("LobiReFT", rotates=True, learns=False, compares=False),
    }
)


def parts_of(arrays: Arrays, kind: Kind) -> LowRankParts:
    """Return the update that the tensors of one file are, by the formula of their kind.

    Raises E223, E227 and E235 for tensors that are missing, of another shape, or too many.
    """
    arrays = _named(arrays, kind)
    if kind.learns:
        read = arrays.pick("weight", (None, None), "[rank, H]")
        bias = arrays.pick("bias", (len(read),), f"[rank], here [{len(read)}]")
    else:
        bias = arrays.pick("learned_source", (None,), "[rank]")
        read = np.zeros((len(bias), _width(arrays)), np.float32)
    rank, width = read.shape
    if kind.rotates:
        write = rotation(arrays, width, rank).T.copy()
    else:
        wanted = f"[rank, H], here [{rank}, {width}]"
        write = arrays.pick("proj_layer.weight", (rank, width), wanted)
        if kind.compares and "proj_layer.bias" in arrays.by_name:
            bias = bias - arrays.pick("proj_layer.bias", (rank,), f"[rank], here [{rank}]")
    return LowRankParts(read=read, bias=bias, write=write, rotated=kind.compares)


def _named(arrays: Arrays, kind: Kind) -> Arrays:
    """Return the tensors without pyreft's prefix; raise E235 for those that no kind has."""
    given = {name: values for name, values in arrays.by_name.items() if name not in SIZES}
    named: dict[str, Array] = {name.removeprefix(PREFIX): given[name] for name in given}
    known = {*kind.tensors, *(ROTATION if kind.rotates else ())}
    if odd := sorted(set(named) - known):
        raise IntervError(
            "E235",
            f"'{arrays.shown}' holds '{odd[0]}', which is no part of {kind.title}",
            notes=(f"{kind.title} has: {', '.join(kind.tensors)}",),
        )
    if len(named) < len(given):
        note = f"tensors there: {list_text(list(given))}"
        raise IntervError(
            "E235", f"'{arrays.shown}' holds a tensor with '{PREFIX}' and without", notes=(note,)
        )
    return Arrays(arrays.shown, arrays.format, named)


def _width(arrays: Arrays) -> int:
    """Return the width of a rotation, 1 where there is none: that is then said of the rotation."""
    name = next((name for name in ROTATION if name in arrays.by_name), None)
    shape = arrays.by_name[name].shape if name else ()
    return int(shape[0]) if shape else 1
