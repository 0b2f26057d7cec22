"""The process that holds one engine: started by `host.py`, answers calls until its input ends.

Engine A: vLLM's first runner, Inductor's C++ (or the traced graph as it is, for quick starts).
Engine B: the second runner and the piecewise backend, with every Triton kernel under the
interpreter: the path that CUDA users get, without the GPU.
"""

from __future__ import annotations

import pickle
import sys
import traceback
from types import SimpleNamespace
from typing import Any

from tests.engine.answer import Answer

FLAVOURS = {
    "inductor": {},
    "traced": {"VLLM_CPU_CI_ENV": "1"},
    "B": {"VLLM_CPU_CI_ENV": "1", "TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"},
}


def prepare_b() -> None:
    """Let vLLM see a Triton driver, and give the CPU platform the backend that CUDA has."""
    from triton.backends import Backend, backends

    driver = SimpleNamespace(is_active=lambda: True)
    backends["cpu"] = Backend(compiler=None, driver=driver)  # type: ignore[arg-type]

    from vllm.config import CompilationMode
    from vllm.platforms.cpu import CpuPlatform

    original = CpuPlatform.check_and_update_config.__func__

    def check_and_update_config(cls: Any, config: Any) -> None:
        original(cls, config)
        config.compilation_config.mode = CompilationMode.VLLM_COMPILE
        config.compilation_config.backend = "eager"
        config.compilation_config.compile_sizes = []

    CpuPlatform.check_and_update_config = classmethod(check_and_update_config)


class Child:
    """The calls that a host may make."""

    def __init__(self, model: str, options: dict[str, Any]) -> None:
        from vllm import LLM

        self.llm = LLM(model, **options)

    def generate(self, prompts: list[list[int]], tokens: int) -> list[Answer]:
        """Return greedy completions with logprobs of prompt and answer."""
        from vllm import SamplingParams

        params = SamplingParams(
            max_tokens=tokens,
            temperature=0,
            logprobs=0,
            prompt_logprobs=0,
            ignore_eos=True,
            detokenize=False,
        )
        done = self.llm.generate(
            [{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False
        )
        return [_answer(one) for one in done]

    def use(self, program: str | None) -> None:
        """Make a program the one that every request gets; None switches edits off."""
        engine = self._runner().interv
        if program is not None:
            engine.write_program(0, program)
        engine.default_slot = -1 if program is None else 0

    def edited(self) -> list[int]:
        """Return how many rows each site has edited so far."""
        return self._runner().interv.edited.sum(dim=1).tolist()

    def facts(self) -> dict[str, Any]:
        """Return what tests ask about the engine itself."""
        from vllm.compilation.counter import compilation_counter

        config = self.llm.llm_engine.vllm_config
        return {
            "runner": type(self._runner()).__module__,
            "mode": int(config.compilation_config.mode),
            "additional": type(config.additional_config).__name__,
            "hash": config.compute_hash(),
            "compiled": compilation_counter.num_aot_compiles,
            "loaded": compilation_counter.num_aot_artifacts_loaded,
            "patched": hasattr(self._runner(), "interv"),
        }

    def _runner(self) -> Any:
        core = self.llm.llm_engine.engine_core.engine_core
        return core.model_executor.driver_worker.worker.model_runner


def _answer(output: Any) -> Answer:
    only = output.outputs[0]
    ids = list(only.token_ids)
    chosen = [step[token].logprob for token, step in zip(ids, only.logprobs, strict=True)]
    prompt = [
        step[token].logprob
        for token, step in zip(output.prompt_token_ids, output.prompt_logprobs, strict=True)
        if step is not None
    ]
    return Answer(ids, chosen, prompt)


def main() -> None:
    """Serve pickled calls from standard input; replies go to the descriptor given."""
    flavour, model, options = pickle.load(sys.stdin.buffer)
    replies = open(int(sys.argv[1]), "wb", buffering=0)  # noqa: SIM115
    child: Any = None
    while True:
        try:
            if child is None:
                if flavour == "B":
                    prepare_b()
                child, reply = Child(model, options), None
            else:
                name, args = pickle.load(sys.stdin.buffer)
                reply = getattr(child, name)(*args)
            pickle.dump(("ok", reply), replies)
        except EOFError:
            return
        except BaseException as error:
            text = "".join(traceback.format_exception(error))
            pickle.dump(("error", text), replies)
            return


if __name__ == "__main__":
    main()
