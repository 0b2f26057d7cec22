"""Which tool most likely wrote a file of vectors, and why: by what it holds, then by its name.

What a file says of itself (`source`) is no guess and stands apart. Each rule was read from the
code of the tool that it names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from interv.document.sites import POST_ATTN, POST_BLOCK, PRE_ATTN
from interv.vectors.raw import Contents

# Where steering-vectors adds, by its `layer_type`; what a norm gives is no site.
LAYER_TYPES: Mapping[str, str] = MappingProxyType(
    {"decoder_block": POST_BLOCK, "self_attn": POST_ATTN, "mlp": POST_BLOCK}
)
PERSONA = re.compile(r".+_(?:prompt_avg|response_avg|prompt_last)_diff")
CAA = re.compile(r"vec_layer_([0-9]{1,4})_.+")


@dataclass(frozen=True, slots=True)
class Origin:
    """A tool, what tells it, and where that tool adds its directions; "" where it does not say."""

    tool: str
    why: str
    site: str = ""
    layer: int | None = None  # that the file's name says
    rows: str = ""  # what the tool numbers rows by

    def notes(self, measured: str, rows: int | None, numbering: str) -> tuple[str, ...]:
        """Say what of the tool's own use is easily missed: its site, and the numbers of rows.

        `measured` is the site that names say already, `rows` how many there are, `numbering` what
        is said of them.
        """
        found = []
        if self.site != POST_BLOCK and not measured:
            place = f"{self.site}[N]" if self.site else "the output of a norm, which is no site"
            found.append(f"{self.tool} adds layer N at {place}")
        if rows is not None and self.rows and not numbering:
            found.append(f"{self.tool} saves rows by {self.rows}: 'rows {self.rows}' says so")
        return tuple(found)


Rule = Callable[[Contents, str], Origin | None]


def origin(contents: Contents, stem: str) -> Origin | None:
    """Return where a file of this name most likely comes from; None where nothing tells."""
    return next((found for rule in RULES if (found := rule(contents, stem)) is not None), None)


def _steering_vectors(contents: Contents, stem: str) -> Origin | None:
    kind = contents.beside.get("layer_type")
    if not contents.of.startswith("steering_vectors.") and not (contents.of and kind):
        return None
    said = f"its layer_type is '{kind}'" if kind else "its class says so"
    site = LAYER_TYPES.get(str(kind), "")
    return Origin("steering-vectors", f"an object of class '{contents.of}', {said}", site)


def _repeng(contents: Contents, stem: str) -> Origin | None:
    if contents.of.startswith("repeng."):
        return Origin("repeng", f"an object of class '{contents.of}'", POST_BLOCK)
    layers = {name: layer for layer, name in contents.layers.items()}
    order = [layers[name] for name in contents.tensors if name in layers]
    down = len(order) > 1 and all(one > other for one, other in pairwise(order))
    if contents.format != "gguf" or not down or 0 in order:
        return None
    return Origin("repeng", "a GGUF control vector whose layers run downwards", POST_BLOCK)


def _activation_steering(contents: Contents, stem: str) -> Origin | None:
    if not {"model_type", "explained_variances"} <= set(contents.beside):
        return None
    why = "'model_type', 'directions' and 'explained_variances'"
    return Origin("IBM's activation-steering", why, PRE_ATTN)


def _transformer_lens(contents: Contents, stem: str) -> Origin | None:
    names = [*contents.tensors, *(v for v in contents.beside.values() if isinstance(v, str))]
    hooks = [name for name in names if re.fullmatch(r"blocks\.\d+\.hook_resid_\w+", name)]
    if not hooks:
        return None
    sites = {"pre": PRE_ATTN, "mid": POST_ATTN, "post": POST_BLOCK}
    site = sites.get(hooks[0].rpartition("_")[2], "")
    return Origin("TransformerLens", f"its names are hooks, as '{hooks[0]}'", site)


def _persona(contents: Contents, stem: str) -> Origin | None:
    if not PERSONA.fullmatch(stem):
        return None
    why = "its name; it saves a row for each of hidden_states, and steers at the output of a block"
    return Origin("persona_vectors", why, POST_BLOCK, rows="hidden_states")


def _caa(contents: Contents, stem: str) -> Origin | None:
    if not (match := CAA.fullmatch(stem)):
        return None
    why = f"its name, which says layer {match[1]}; it adds to the output of that block"
    return Origin("CAA", why, POST_BLOCK, int(match[1]))


RULES: tuple[Rule, ...] = (
    _steering_vectors,
    _repeng,
    _activation_steering,
    _transformer_lens,
    _persona,
    _caa,
)
