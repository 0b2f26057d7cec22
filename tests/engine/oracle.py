"""The independent oracle: Hugging Face Transformers in fp32, plain torch edits in forward hooks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from tests.engine.answer import Answer

Edit = Callable[[torch.Tensor], torch.Tensor]

# The module whose output is what the block adds to the stream after its attention.
_BRANCHES = ("post_attention_layernorm", "self_attn", "attn")
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
        self, ids: list[int], tokens: int, edits: dict[tuple[str, int], Edit] | None = None
    ) -> Answer:
        """Return the greedy continuation of `ids` with `edits` at their (site, layer)."""
        with ExitStack() as stack, torch.no_grad():
            for (site, layer), edit in (edits or {}).items():
                for handle in self._hooks(site, layer, edit):
                    stack.callback(handle.remove)
            return self._greedy(list(ids), tokens)

    def _greedy(self, ids: list[int], tokens: int) -> Answer:
        logprobs, prompt = [], len(ids)
        # No cache: every token is recomputed, so nothing can be stale.
        for _ in range(tokens):
            scores = torch.log_softmax(self.model(torch.tensor([ids])).logits[0].float(), -1)
            token = int(scores[-1].argmax())
            logprobs.append(float(scores[-1, token]))
            ids.append(token)
        given = [float(scores[i - 1, ids[i]]) for i in range(1, prompt)]
        return Answer(ids[prompt:], logprobs, given)

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
