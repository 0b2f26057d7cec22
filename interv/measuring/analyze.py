"""Run the programs of a compilation on their model and measure what they edit and what it costs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from interv.compile import Compilation
from interv.errors import IntervError
from interv.measuring.engine_process import QUIET_ENV, run_module
from interv.measuring.measure import MOST_PROMPTS, Job
from interv.measuring.measurement import Measurement, load
from interv.model import with_weights
from interv.progress import Progress
from interv.runtime.compat import check_version

PROMPTS = (
    "How do you feel about rainy days?",
    "Write the first lines of a story about a cat.",
    "What is the capital of France?",
    "Describe a day at the ocean.",
)
NEW_TOKENS = 32
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Load:
    """What the model is asked: prompts as they are, without a chat template."""

    prompts: tuple[str, ...] = PROMPTS
    new_tokens: int = NEW_TOKENS


def analyze(
    compilation: Compilation, files: Sequence[Path], model: str, load_: Load
) -> Measurement:
    """Measure every program of `files`, compiled for `model`, in one vLLM engine.

    The engine is a process of its own, which does not outlive the call; its steps show on the
    error stream. Raises E253 for prompts that cannot be measured, E500 or E501 without a vLLM
    that fits, E504 where there is no program, E545 where the engine gives no answer, E546 for a
    model without weights.
    """
    _check_prompts(load_.prompts)
    check_version()
    helps = ["give a folder with weights, or leave out --analyze"]
    where = with_weights(model, "nothing can be measured on it", helps)
    programs = compilation.bundle.programs
    if not programs:
        raise IntervError("E504", "the documents have no program, so there is nothing to measure")
    paths = tuple(str(Path(file).resolve()) for file in files)
    job = Job(where, paths, programs, load_.prompts, load_.new_tokens, ROUNDS)
    # What the user has set for the cache of a CPU's engine counts; vLLM's own default is large.
    env = {"VLLM_CPU_KVCACHE_SPACE": "1", **os.environ, **QUIET_ENV}
    with Progress() as progress:
        progress.step(f"starting vLLM with {model}")
        return load(run_module("interv.measuring.measure", job.dump(), env, progress.step))


def _check_prompts(prompts: Sequence[str]) -> None:
    if len(prompts) > MOST_PROMPTS:
        raise IntervError(
            "E253", f"{len(prompts)} prompts are given, {MOST_PROMPTS} can be measured at once"
        )
    if not all(prompts):
        raise IntervError("E253", "a prompt is empty")
