"""Names that other tools give to points of a model, and what they are here.

TransformerLens: `blocks.N.hook_resid_post`. nnsight: `model.layers[N].output`. pyvene:
`block_output`. Transformers: `hidden_states[N]`. Sources: their documentation and code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from interv.document.sites import POST_ATTN, POST_BLOCK, PRE_ATTN

NORMED = "norms stand between the stream and what reads it, and no site is behind one"
INSIDE = "attention has no sites inside: edits are of the residual stream"
END = "nothing behind the last block is a site: post_block[-1] is the last"
HIDDEN = (
    "Transformers' hidden_states[i + 1] is post_block[i], hidden_states[0] is pre_attn[0]; "
    "the last of them is behind the final norm in most models"
)


@dataclass(frozen=True, slots=True)
class Foreign:
    """What parts of a path are called elsewhere, the site they are here, and why they are none."""

    names: re.Pattern[str]
    site: str = ""
    why: str = ""


def _branch(noun: str, site: str) -> str:
    return (
        f"what {noun} adds is no site of its own; an addition to it is one at {site}, where no "
        "norm stands between"
    )


# In this order: a part inside of a block says more than the block's own input or output.
KNOWN = (
    Foreign(re.compile(r"(hook_)?resid_pre"), PRE_ATTN),
    Foreign(re.compile(r"(hook_)?resid_mid"), POST_ATTN),
    Foreign(re.compile(r"(hook_)?resid_post"), POST_BLOCK),
    Foreign(re.compile(r"(hook_)?(mlp|attn)_in(put)?|ln[12]|ln_[12]|.*layernorm"), why=NORMED),
    Foreign(re.compile(r"hook_(q|k|v|z|rot_q|rot_k|pattern|attn_scores|result)"), why=INSIDE),
    Foreign(re.compile(r"[qkvo]_proj|head_.*"), why=INSIDE),
    Foreign(
        re.compile(r"(hook_)?attn_out(put)?|attention_output|(self_)?attn|attention"),
        why=_branch("attention", POST_ATTN),
    ),
    Foreign(
        re.compile(r"(hook_)?mlp_out(put)?|mlp(_activation)?|feed_forward"),
        why=_branch("an MLP", POST_BLOCK),
    ),
    Foreign(re.compile(r"hidden_states?"), why=HIDDEN),
    Foreign(re.compile(r"(hook_)?embed|embed_tokens|wte"), f"{PRE_ATTN}[0]"),
    Foreign(re.compile(r"ln_final|ln_f|norm|final_norm|lm_head|unembed|logits"), why=END),
    Foreign(re.compile(r"(block_)?input"), PRE_ATTN),
    Foreign(re.compile(r"(block_)?output"), POST_BLOCK),
    Foreign(re.compile(r"layers?|blocks?|h"), POST_BLOCK),
)
_LAYER = re.compile(r"(?:\b|_)(?:layers?|blocks?|h)(?:\.|\[|_)(\d{1,6})\b")
_INDEX = re.compile(r"^\w+\[(\d{1,6})\]")
PATH = re.compile(r"[A-Za-z_]\w*(?:\.\w+|\[-?\d+\])*")


def advice(written: str) -> tuple[str, ...]:
    """Return the helps for a name of another tool, with its layer where it says one; or none."""
    parts = [part for part in re.split(r"[.\[\]]", written) if part and not part.isdecimal()]
    found = next((one for one in KNOWN if any(one.names.fullmatch(p) for p in parts)), None)
    if found is None:
        return ()
    if not found.site:
        return (found.why,)
    layer = _LAYER.search(written) or _INDEX.search(written)
    place = f"[{layer[1]}]" if layer and "[" not in found.site else ""
    return (f"did you mean '{found.site}{place}'?",)
