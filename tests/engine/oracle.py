"""The independent oracle: Hugging Face Transformers in fp32, plain torch edits in forward hooks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from tests.engine.answer import Answer

Edit = Callable[[torch.Tensor], torch.Tensor]
Place = tuple[str, int]  # site, layer

# The module whose output is what the block adds to the stream after its attention.
_BRANCHES = ("post_attention_layernorm", "self_attn", "conv", "attn")
_POST_NORM = {"gemma3_text", "olmo2"}


class Oracle:
    """A Transformers model whose residual stream can be edited at one site."""

    def __init__(self, model: str | Path) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        base = self.model.base_model
        self.blocks = base.layers if hasattr(base, "layers") else base.h

    def answer(
        self, prompt: list[int], tokens: int, edits: dict[Place, Edit] | None = None
    ) -> Answer:
        """Return the greedy continuation of a prompt with `edits` at their (site, layer)."""
        ids: list[int] = []
        for _ in range(tokens):
            ids = self.follow(prompt, [*ids, 0], edits).ids
        return self.follow(prompt, ids, edits)

    def follow(
        self, prompt: list[int], ids: list[int], edits: dict[Place, Edit] | None = None
    ) -> Answer:
        """Return the greedy choice and log-probability at every step of an answer given as `ids`.

        One forward pass without a cache, so that nothing can be stale. The greedy choices equal
        `ids` exactly where `ids` is the greedy answer.
        """
        with ExitStack() as stack, torch.no_grad():
            for (site, layer), edit in (edits or {}).items():
                for handle in self._hooks(site, layer, edit):
                    stack.callback(handle.remove)
            fed = torch.tensor([prompt + ids[:-1]])
            scores = torch.log_softmax(self.model(fed).logits[0].float(), -1)
        start = len(prompt) - 1
        greedy = scores[start:].argmax(-1).tolist()
        chosen = [float(scores[start + i, token]) for i, token in enumerate(greedy)]
        given = [float(scores[i, token]) for i, token in enumerate(prompt[1:])]
        return Answer(greedy, chosen, given)

    def _hooks(self, site: str, layer: int, edit: Edit) -> list[Any]:
        block = self.blocks[layer]
        if site == "pre_attn":
            return [block.register_forward_pre_hook(lambda m, a: (edit(a[0]), *a[1:]))]
        if site == "post_block":
            return [block.register_forward_hook(lambda m, a, out: _first(out, edit))]
        # The sum itself is no module's output: change the branch so that the sum is the edited one.
        entering: dict[str, torch.Tensor] = {}
        return [
            block.register_forward_pre_hook(lambda m, a: entering.update(stream=a[0])),
            self._branch(block).register_forward_hook(
                lambda m, a, out: _first(
                    out, lambda x: edit(entering["stream"] + x) - entering["stream"]
                )
            ),
        ]

    def _branch(self, block: torch.nn.Module) -> torch.nn.Module:
        names = _BRANCHES if self.model.config.model_type in _POST_NORM else _BRANCHES[1:]
        found: torch.nn.Module = next(getattr(block, n) for n in names if hasattr(block, n))
        return found


def _first(out: Any, change: Edit) -> Any:
    return change(out) if torch.is_tensor(out) else (change(out[0]), *out[1:])
