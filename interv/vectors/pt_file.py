"""Read directions from `.pt` files, by `torch.load(weights_only=True)` and nothing else."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interv.vectors.raw import BadFile, Contents, Raw

if TYPE_CHECKING:
    import torch

LAYER = re.compile(r"(?:layer\.)?(0|[1-9][0-9]{0,5})")


def read(path: Path) -> Contents:
    """Return the tensors of a `.pt` file: a bare tensor (named ""), or a dict of tensors.

    Keys are layers (`14` or "layer.14") or names. Raises BadFile for anything else, for pickled
    code, for the format torch wrote before version 1.6, and for archives that would unpack to
    more than the file's size.
    """
    import torch

    _check_archive(path)
    try:
        # Its remarks on pickle protocols say nothing about the numbers that are read.
        with warnings.catch_warnings(action="ignore"):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadFile("it holds pickled objects other than tensors, which are never run") from error
    except Exception as error:
        # torch raises whatever its zip reader or unpickler met, of any class: it is the file.
        raise BadFile((str(error) or type(error).__name__).splitlines()[0]) from error
    limit = path.stat().st_size
    if isinstance(loaded, torch.Tensor):
        return Contents("pt", {"": _raw(loaded, limit)})
    if not isinstance(loaded, Mapping):
        raise BadFile(f"it holds a {type(loaded).__name__}, not a tensor or a dict of tensors")
    return _from_dict(loaded, limit)


def _from_dict(loaded: Mapping[Any, Any], limit: int) -> Contents:
    import torch

    tensors: dict[str, Raw] = {}
    layers: dict[int, str] = {}
    for key, value in loaded.items():
        if not isinstance(value, torch.Tensor):
            raise BadFile(f"its entry '{key}' is a {type(value).__name__}, not a tensor")
        name = f"layer.{key}" if isinstance(key, int) else str(key)
        if name in tensors:
            raise BadFile(f"it holds '{name}' twice")
        tensors[name] = _raw(value, limit)
        if match := LAYER.fullmatch(name):
            if int(match[1]) in layers:
                raise BadFile(f"it holds layer {match[1]} twice")
            layers[int(match[1])] = name
    return Contents("pt", tensors, dict(sorted(layers.items())))


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BadFile(
            "it is not an archive of torch 1.6 or later; load and save it again with torch"
        ) from error
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise BadFile("its archive unpacks to more than the file's own size")


def _raw(tensor: torch.Tensor, limit: int) -> Raw:
    import torch

    # A view can claim any shape over one stored number, by strides of zero.
    if tensor.layout != torch.strided or tensor.numel() * tensor.element_size() > limit:
        raise BadFile(f"a tensor of shape {list(tensor.shape)} is not stored densely in it")
    if tensor.is_complex() or tensor.is_quantized or tensor.device.type != "cpu":
        raise BadFile(f"a tensor of type {tensor.dtype} is not a direction")
    exact = tensor.detach().to(torch.float64).numpy()
    data = np.frombuffer(np.ascontiguousarray(exact).astype("<f8").tobytes(), dtype=np.uint8)
    return Raw("F64", tuple(tensor.shape), data)
