"""The names under which tools save the directions of layers: one table, for every format.

A file is read as a bank where all of its tensors are named by one of these patterns, each with a
layer of its own. What the patterns of a tool say about the site is kept beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from interv.document.sites import POST_ATTN, POST_BLOCK, PRE_ATTN
from interv.vectors.raw import BadFile

_EXACT = r"(0|[1-9][0-9]{0,5})"
_N = r"([0-9]{1,6})"
_BLOCKS = r"(?:model\.|transformer\.|gpt_neox\.|decoder\.|base_model\.)*(?:layers|layer|blocks|h)"
_OUT = r"(?:\.(?:block_)?output)?"


@dataclass(frozen=True, slots=True)
class Pattern:
    """How a tool names the direction of layer N, and the site that the name says, if any.

    The names of our own files, and bare numbers, say no more than the layer: they are `plain`.
    """

    shown: str
    names: re.Pattern[str]
    site: str = ""
    plain: bool = False


PATTERNS = (
    Pattern("layer.N", re.compile(rf"(?:layer\.)?{_EXACT}"), plain=True),
    Pattern("layer_N", re.compile(rf"[Ll]ayer[ _-]?{_N}")),
    Pattern("direction.N", re.compile(rf"(?:steering_)?(?:direction|vector)s?_{_N}")),
    Pattern("direction.N", re.compile(rf"directions?\.{_N}")),
    Pattern("layers.N.input", re.compile(rf"{_BLOCKS}[._]{_N}\.(?:block_)?input"), PRE_ATTN),
    Pattern("layers[N].input", re.compile(rf"{_BLOCKS}\[{_N}\]\.(?:block_)?input"), PRE_ATTN),
    Pattern("layers.N", re.compile(rf"{_BLOCKS}[._]{_N}{_OUT}")),
    Pattern("layers[N]", re.compile(rf"{_BLOCKS}\[{_N}\]{_OUT}")),
    *(
        Pattern(f"blocks.N.hook_{name}", re.compile(rf"blocks\.{_N}\.(?:hook_)?{name}"), site)
        for name, site in (
            ("resid_pre", PRE_ATTN),
            ("resid_mid", POST_ATTN),
            ("resid_post", POST_BLOCK),
        )
    ),
    *(
        Pattern(f"{name}.N", re.compile(rf"(?:hook_)?{name}[._]{_N}"), site)
        for name, site in (
            ("resid_pre", PRE_ATTN),
            ("resid_mid", POST_ATTN),
            ("resid_post", POST_BLOCK),
        )
    ),
)
# How a bank can be named, for the help of errors.
KNOWN = "layer.10, 10, layer_10, model.layers.10, blocks.10.hook_resid_post, direction.10"


@dataclass(frozen=True, slots=True)
class Reading:
    """The layers that a file's names say, by the pattern that all of them are of."""

    layers: Mapping[int, str]
    pattern: Pattern

    @property
    def note(self) -> str:
        """Say what was taken for what; nothing where the names say it themselves."""
        if self.pattern.plain:
            return ""
        text = f"names like '{next(iter(self.layers.values()))}' are read as layers"
        if not self.pattern.site:
            return text
        return f"{text}; they were measured at {self.pattern.site} of these layers"


def read_names(names: Iterable[str]) -> Reading | None:
    """Return the layers that these names say, ascending; None where not all are of one pattern.

    Raises BadFile for a layer that stands there twice.
    """
    listed = list(names)
    for pattern in PATTERNS:
        found = [(match, name) for name in listed if (match := pattern.names.fullmatch(name))]
        if not listed or len(found) < len(listed):
            continue
        layers: dict[int, str] = {}
        for match, name in found:
            layer = int(match[1])
            if layer in layers:
                raise BadFile(f"it holds layer {layer} twice")
            layers[layer] = name
        return Reading(dict(sorted(layers.items())), pattern)
    return None
