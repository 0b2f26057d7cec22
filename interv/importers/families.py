"""What the hooks of RhizoNymph are in our sites, by how the model of the source is built.

Its `pre_attn` and `post_attn` write into the stream after the norm that follows has read it. So an
edit is first seen one step later than at our site of that name: on Llama an addition at
`pre_attn[L]` passes by the attention of block L, which is our `post_attn[L]`, and one at
`post_attn[L]` passes by the MLP, which is our `post_block[L]`. A clamp there reads one stream and
writes into another, so that only additions have an equal, unless `clamps` says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from interv.document.spec import SiteName
from interv.errors import IntervError, suggest


@dataclass(frozen=True, slots=True)
class Equal:
    """Our site that an addition at a hook equals; None with the reason where there is none."""

    site: SiteName | None
    reason: str = ""
    clamps: bool = False


HOOKS = ("pre_attn", "post_attn", "post_block", "mlp_in", "mlp_out")
_BLOCK = Equal("post_block", clamps=True)
_LATE = "it reads the stream before the MLP and is first seen behind it"
_EARLY = "it reads the stream that enters the block and is first seen behind the attention"
_TO_MLP = Equal("post_attn", _EARLY)
_TO_NEXT = Equal("post_block", _LATE)
_INPUT = Equal(None, "the input of an MLP is no site of the stream")
_OUTPUT = Equal("post_block", "it reads the output of the MLP alone")
_UNSEEN = Equal(None, "the hook edits a value there that nothing reads")
_ABSENT = Equal(None, "this family has no such hook there")


def _family(pre_attn: Equal, post_attn: Equal, mlp_out: Equal = _ABSENT) -> Mapping[str, Equal]:
    mlp_in = _ABSENT if mlp_out is _ABSENT else _INPUT
    hooks = (pre_attn, post_attn, _BLOCK, mlp_in, mlp_out)
    return MappingProxyType(dict(zip(HOOKS, hooks, strict=True)))


_BEHIND = Equal("post_block", "it reads the stream that enters the block, and is added at its end")
FAMILIES: Mapping[str, Mapping[str, Equal]] = MappingProxyType(
    {
        "llama": _family(_TO_MLP, _TO_NEXT),  # Mistral, Qwen2, Mixtral, gpt-oss and others alike
        "qwen3": _family(_TO_MLP, _TO_NEXT, _OUTPUT),
        "gemma3": _family(
            _TO_MLP, Equal("post_attn", "it reads the stream without the attention"), _OUTPUT
        ),
        "stablelm": _family(_TO_MLP, Equal("post_attn", "what it reads there is not certain")),
        "opt": _family(_TO_MLP, Equal("post_attn", "what it reads there is not certain")),
        "gpt_neox": _family(_UNSEEN, Equal("post_block", "it comes before the hook post_block")),
        "gpt_neox_sequential": _family(_UNSEEN, Equal("post_attn", clamps=True)),
        "phi": _family(_BEHIND, _TO_NEXT),
        "falcon": _family(_BEHIND, _UNSEEN),
        "commandr": _family(_BEHIND, _TO_NEXT),
    }
)


def equal_of(hook: str, family: str | None, where: str) -> Equal:
    """Return what a hook is here.

    Raises E211 for a hook or a family that there is not, E261 where the family decides and none
    is given.
    """
    if hook not in HOOKS:
        raise IntervError(
            "E211",
            f"'{hook[:60]}' is not a hook",
            notes=(f"in {where}", f"hooks: {', '.join(HOOKS)}"),
            helps=suggest(hook, HOOKS),
        )
    if hook == "post_block":
        return _BLOCK
    if family is None:
        raise IntervError(
            "E261",
            f"'{hook}' has no exact equal here",
            notes=(
                f"in {where}",
                "what it edits depends on how the model is built",
                f"families: {', '.join(FAMILIES)}",
            ),
            helps=("--family llama says that it is built like Llama, Mistral or Qwen2",),
        )
    return FAMILIES[check_family(family)][hook]


def check_family(family: str) -> str:
    """Return the name of a family; raise E211 for another word."""
    if family not in FAMILIES:
        raise IntervError(
            "E211",
            f"'{family}' is not a family",
            notes=(f"families: {', '.join(FAMILIES)}",),
            helps=suggest(family, FAMILIES),
        )
    return family
