"""What the objects of a torch archive or a pickle mean as directions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy.typing as npt

from interv.vectors import chatspace
from interv.vectors.pickle_values import Array, Name, Record
from interv.vectors.raw import BadFile, Contents, Raw, raw_of

if TYPE_CHECKING:
    import torch

LAYER = re.compile(r"(?:layer\.)?(0|[1-9][0-9]{0,5})")
# Tensors may share what is stored, as `read` and `write` of a projection do: up to so many times.
SHARED = 4


def contents(loaded: object, format: str, limit: int) -> Contents:
    """Return the directions that a file of `limit` bytes holds: one bare array (named "") or more.

    A dict has layers as keys (`14` or "layer.14") or names; chatspace's bundles and specs are
    read too. Raises BadFile for anything else.
    """
    if (found := chatspace.operations(loaded)) is not None:
        return chatspace.contents(found, [numbers(one.vector, limit) for one in found])
    if is_array(loaded):
        return Contents(format, {"": raw_of(numbers(loaded, limit))})
    if not isinstance(loaded, Mapping):
        raise BadFile(f"it holds a {kind(loaded)}, not a tensor or a dict of tensors")
    return _from_dict(loaded, format, limit)


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


def _from_dict(loaded: Mapping[Any, Any], format: str, limit: int) -> Contents:
    tensors: dict[str, Raw] = {}
    layers: dict[int, str] = {}
    used = 0
    for key, value in loaded.items():
        if not is_array(value):
            raise BadFile(f"its entry '{key}' is a {kind(value)}, not a tensor")
        name = f"layer.{key}" if isinstance(key, int) else str(key)
        if name in tensors:
            raise BadFile(f"it holds '{name}' twice")
        values = numbers(value, limit)
        used += values.nbytes
        if used > SHARED * limit:
            raise BadFile(f"its tensors are more than {SHARED} times larger than the file")
        tensors[name] = raw_of(values)
        if match := LAYER.fullmatch(name):
            if int(match[1]) in layers:
                raise BadFile(f"it holds layer {match[1]} twice")
            layers[int(match[1])] = name
    return Contents(format, tensors, dict(sorted(layers.items())))
