"""Get activations of texts from a model in vLLM, in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from interv.extract.job import ACTIVATIONS, DONE, Job, raise_refused
from interv.measuring.engine_process import QUIET_ENV, run_module
from interv.progress import Progress
from interv.runtime.compat import check_version

# For an engine that runs each text once: what it would win by compiling it never gets back. What
# the user has set counts.
CHILD_ENV = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_CI_ENV": "1"}


@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """The stream at the asked layers, float32 [2, N, L, H], positives first; facts of the run."""

    values: npt.NDArray[np.float32]
    facts: Mapping[str, Any]


def read_activations(job: Job, progress: Progress) -> Activations:
    """Run the texts of a job through its model and return their activations.

    The engine's process does not outlive the call. Raises E286, E288, E289 and E549 for texts and
    activations (`interv.extract.forward`), E500 or E501 without a vLLM that fits, E545 where the
    engine gives no answer.
    """
    check_version()
    env = {**CHILD_ENV, **os.environ, **QUIET_ENV}
    progress.step(f"starting vLLM with {job.model}")
    found = run_module("interv.extract.forward", job.dump(), env, _teller(job, progress))
    raise_refused(found)
    path = Path(job.folder) / ACTIVATIONS
    return Activations(np.load(path, mmap_mode="r"), found)


def _teller(job: Job, progress: Progress) -> Callable[[str], None]:
    def tell(line: str) -> None:
        if line.startswith(DONE):
            progress.done(int(line.removeprefix(DONE)))
        else:
            progress.step(line, total_bytes=2 * len(job.pairs))

    return tell
