"""What the compiler needs to know of a model: its width and its number of blocks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interv.errors import IntervError, suggest
from interv.files import MIB, read_regular

# Names under which configs keep the same two numbers, the usual one first.
WIDTH_FIELDS = ("hidden_size", "n_embd", "d_model", "dim", "model_dim")
DEPTH_FIELDS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
# Lists with an entry for each block, where a config gives their number in no other way.
BLOCK_LISTS = ("layers_block_type", "layer_types")
# Where a config of several parts keeps the language model's.
TEXT_PARTS = ("text_config", "llm_config", "language_config", "language_model", "thinker_config")

LARGEST_CONFIG = 16 * MIB
# The files that weights are in.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


@dataclass(frozen=True, slots=True)
class KvFacts:
    """What a model keeps of each token: keys and values of every layer."""

    num_layers: int  # L
    kv_heads: int  # G
    head_size: int  # D
    max_length: int | None  # the longest request it was made for, where its config says


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The facts of a model that a document is compiled against."""

    name: str
    architecture: str
    hidden_size: int  # H
    num_layers: int  # L
    # None where the config does not say it in the usual way.
    kv: KvFacts | None = field(default=None, compare=False)


def model_facts(name_or_path: str) -> ModelFacts:
    """Read the facts of a model: a folder, a `config.json`, or a name on the Hugging Face hub.

    A hub name is looked up in the local cache and downloaded (one file) where it is not there.
    Raises E530 where there is no such model or no config, E531 where the config cannot be read,
    E532 where it lacks the width or the number of blocks.
    """
    path = Path(name_or_path)
    if path.is_dir():
        config = path / "config.json"
        if not config.is_file():
            here = ", ".join(sorted(item.name for item in path.iterdir())) or "nothing"
            note = f"files there: {here}"
            raise IntervError("E530", f"folder '{path}' has no config.json", notes=[note])
        name = path.resolve().name
    elif path.is_file():
        config, name = path, path.resolve().parent.name
    else:
        config, name = _from_hub(name_or_path), name_or_path
    return facts_from_config(_load(config), name)


def facts_from_config(config: Mapping[str, Any], name: str) -> ModelFacts:
    """Read the facts of a model from its config, the text part of it where there are several.

    Raises E532 where it lacks the width or the number of blocks.
    """
    for part in _parts(config):
        width, depth = _first(part, WIDTH_FIELDS), _depth(part)
        if width is not None and depth is not None:
            return ModelFacts(name, _architecture(config), width, depth, _kv(part, width, depth))
    wanted = [
        f"the width is one of: {', '.join(WIDTH_FIELDS)}",
        f"the number of blocks is one of: {', '.join(DEPTH_FIELDS)}",
        f"looked for them at the top and in: {', '.join(TEXT_PARTS)}",
    ]
    lacks = [
        what
        for what, found in (
            ("width", [_first(part, WIDTH_FIELDS) for part in _parts(config)]),
            ("number of blocks", [_depth(part) for part in _parts(config)]),
        )
        if not any(found)
    ]
    said = " and no ".join(lacks) or "width and number of blocks in one place"
    raise IntervError("E532", f"the config of '{name}' gives no {said}", notes=wanted)


def _kv(part: Mapping[str, Any], width: int, depth: int) -> KvFacts | None:
    heads = _first(part, ("num_attention_heads", "n_head"))
    if heads is None:
        return None
    shared = _first(part, ("num_key_value_heads",)) or heads
    size = _first(part, ("head_dim",)) or width // heads
    return KvFacts(depth, shared, size, _first(part, ("max_position_embeddings", "n_positions")))


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the places to look in, the text part of a composite config first."""
    for key in TEXT_PARTS:
        part = config.get(key)
        if isinstance(part, Mapping):
            yield from _parts(part)
    yield config


def _depth(part: Mapping[str, Any]) -> int | None:
    if (depth := _first(part, DEPTH_FIELDS)) is not None:
        return depth
    lists = (part.get(field) for field in BLOCK_LISTS)
    return next((len(one) for one in lists if isinstance(one, list) and one), None)


def _first(part: Mapping[str, Any], fields: Sequence[str]) -> int | None:
    found = (part.get(field) for field in fields)
    return next(
        (n for n in found if isinstance(n, int) and not isinstance(n, bool) and n > 0), None
    )


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    if isinstance(names, Sequence) and not isinstance(names, str) and names:
        return str(names[0])
    return str(config.get("model_type", "unknown"))


def _load(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(read_regular(path, LARGEST_CONFIG).decode("utf-8"))
    except OSError as error:
        raise IntervError("E531", f"'{path}' cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise IntervError("E531", f"'{path}' is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise IntervError("E531", f"'{path}' is not a model's config: it is not a JSON object")
    return config


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(hf_hub_download(name, "config.json"))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise _no_model(name, "there is no model of that name on the hub") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = "it is not in the local cache, and the hub cannot be reached"
        raise _no_model(name, reason) from error


def _no_model(name: str, reason: str) -> IntervError:
    path = Path(name)
    near = [str(item) for item in path.parent.iterdir()] if path.parent.is_dir() else []
    return IntervError(
        "E530",
        f"no model '{name}': it is neither a folder nor a file, and {reason}",
        helps=[
            *suggest(name, near),
            "give a folder with a config.json, or that file itself; weights are not needed",
        ],
    )


def with_weights(model: str, otherwise: str, helps: Sequence[str] = ()) -> str:
    """Return what vLLM shall load: a folder with weights, or a name, which it looks up itself.

    Raises IntervError E546 for a folder without weights, which says what is so `otherwise`.
    """
    path = Path(model)
    if not path.exists():
        return model
    folder = path if path.is_dir() else path.parent
    here = sorted(item.name for item in folder.iterdir())
    if not any(Path(name).suffix in _WEIGHTS for name in here):
        raise IntervError(
            "E546",
            f"the model in '{folder}' has no weights, so {otherwise}",
            notes=[f"files there: {', '.join(here)}"],
            helps=helps,
        )
    return str(folder)
