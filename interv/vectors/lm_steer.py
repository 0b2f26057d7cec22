"""LM-Steer checkpoints: two projections [H, r], and the arguments they were trained with.

    h' = h + scale·((h P1) P2ᵀ)

Han et al., 2024 (arXiv:2305.12798). The scale is its epsilon times its steer value.
"""

from __future__ import annotations

from interv.document.wording import number_text
from interv.errors import IntervError
from interv.vectors.arrays import Arrays
from interv.vectors.updates import Array, Found, LowRankParts
from interv.vectors.words import EVERY

NAMES = ("projector1", "projector2")
WHERE = "LM-Steer trains it behind the final norm, which is not a site; it names no layers"


def is_lm_steer(arrays: Arrays) -> bool:
    """Say whether these are the tensors of an LM-Steer checkpoint, of any of its kinds."""
    return any(name in arrays.by_name for name in (*NAMES, "add_vec", "offset_vec"))


def from_arrays(arrays: Arrays) -> Found:
    """Return the one update of a checkpoint, for every layer.

    Raises E223 where a projection is missing, E227 for shapes that do not fit, E234 for several
    steers in one file and for LM-Steer's kinds that are not low rank.
    """
    other = sorted(set(arrays.by_name) - set(NAMES))
    if other:
        raise IntervError(
            "E234",
            f"'{arrays.shown}': LM-Steer's '{other[0]}' cannot be applied",
            notes=(f"tensors that can: {', '.join(NAMES)}",),
        )
    first = _projection(arrays, NAMES[0], (None, None), "[H, rank]")
    width, rank = first.shape
    second = _projection(arrays, NAMES[1], (width, rank), f"[{width}, {rank}], as 'projector1'")
    parts = LowRankParts(read=first.T.copy(), bias=None, write=second.T.copy())
    return Found("lm_steer", {EVERY: parts}, notes=_notes(arrays))


def _projection(
    arrays: Arrays, name: str, shape: tuple[int | None, int | None], wanted: str
) -> Array:
    """Return a projection [H, r], which may be saved as a stack of one."""
    values = arrays.by_name.get(name)
    if values is None or values.ndim != 3:
        return arrays.pick(name, shape, wanted)
    if len(values) != 1:
        raise IntervError(
            "E234",
            f"'{arrays.shown}' holds {len(values)} steers, and an adapter is one",
            notes=(f"'{name}' has shape {list(values.shape)}: [steers, H, rank]",),
            helps=("save the one that is meant as [H, rank]",),
        )
    first: Array = arrays.pick(name, (1, *shape), f"[1, H, rank] or {wanted}")[0]
    return first


def _notes(arrays: Arrays) -> tuple[str, ...]:
    epsilon = arrays.settings.get("epsilon")
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float):
        return (WHERE, "the scale is LM-Steer's epsilon times its steer value")
    return (
        WHERE,
        f"trained with epsilon {number_text(epsilon)}: that is the scale of steer value 1",
    )
