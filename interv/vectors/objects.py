"""What the objects of a torch archive or a pickle are: arrays and their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

import numpy.typing as npt

from interv.vectors.pickle_values import Array, Name, Record
from interv.vectors.raw import BadFile

if TYPE_CHECKING:
    import torch

# Tensors may share what is stored, as `read` and `write` of a projection do: up to so many times.
SHARED = 4


def is_array(value: object) -> TypeGuard[Array | torch.Tensor]:
    """Say whether a value is an array of a pickle or a tensor of torch."""
    return isinstance(value, Array) or type(value).__module__.partition(".")[0] == "torch"


def kind(value: object) -> str:
    """Name the class of a value; of an object of a pickle the class that it claims."""
    if isinstance(value, Record | Name):
        return f"'{value.of if isinstance(value, Record) else value}'"
    return type(value).__name__


def numbers(value: object, limit: int, wanted: str = "a direction") -> npt.NDArray[Any]:
    """Return the numbers of an array of a file of `limit` bytes, in its own shape.

    bfloat16, which numpy lacks, becomes float32. Raises BadFile for views that claim more than the
    file holds, and for what are not real numbers.
    """
    if isinstance(value, Array):
        if value.values is None:
            raise BadFile("its pickle holds an array that is damaged")
        return value.values
    import torch

    if not isinstance(value, torch.Tensor):
        raise BadFile(f"it holds a {kind(value)}, not {wanted}")
    # A view can claim any shape over one stored number, by strides of zero.
    if value.layout != torch.strided or value.numel() * value.element_size() > limit:
        raise BadFile(f"a tensor of shape {list(value.shape)} is not stored densely in it")
    if value.is_complex() or value.is_quantized or value.device.type != "cpu":
        raise BadFile(f"a tensor of type {value.dtype} is not {wanted}")
    exact = value.detach()
    return (exact.float() if exact.dtype == torch.bfloat16 else exact).numpy()
