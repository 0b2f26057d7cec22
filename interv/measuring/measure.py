"""Measure programs on a real model: `python -m interv.measuring.measure JOB RESULT STEPS`.

One vLLM engine answers the same prompts unedited and under each program, a few times in turn. A
process of its own, so that everything the engine prints and holds ends with it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interv.measuring.measurement import UNEDITED, Measurement, Run

# The most requests whose own rows an engine counts at once.
MOST_PROMPTS = 64


@dataclass(frozen=True, slots=True)
class Job:
    """What to measure: every program on every prompt, `new_tokens` each, `rounds` times."""

    model: str
    files: tuple[str, ...]
    programs: tuple[str, ...]
    prompts: tuple[str, ...]
    new_tokens: int
    rounds: int

    def dump(self) -> str:
        """Return the job as JSON."""
        return json.dumps(asdict(self))


def measure(job: Job, tell: Callable[[str], None]) -> Measurement:
    """Run a job in this process; `tell` gets a line at the start of each part.

    The first round compiles what is not compiled yet and counts the edited rows, which every
    round has alike; its times are thrown away.
    """
    import vllm

    import interv

    llm = vllm.LLM(
        job.model,
        max_model_len=-1,  # as long as the memory allows
        max_num_seqs=MOST_PROMPTS,
        # A row whose keys and values are cached is not run again, so it would not be counted.
        enable_prefix_caching=False,
        **interv.engine_args(*job.files),
    )
    engine = _Engine(llm, job)
    asked = (UNEDITED, *job.programs)
    tell("first round: rows are counted")
    rows = {one: engine.rows(one) for one in asked}
    steps: dict[str, list[tuple[float, ...]]] = {one: [] for one in asked}
    for number in range(job.rounds):
        tell(f"round {number + 1} of {job.rounds}: steps are timed")
        # Each expression goes first in turn: what follows a pause may be slower or faster.
        first = number % len(asked)
        for one in (*asked[first:], *asked[:first]):
            steps[one].append(engine.step_us(one))
    runs = tuple(Run(one, rows[one], tuple(steps[one])) for one in asked)
    dtype = llm.llm_engine.vllm_config.model_config.dtype
    return Measurement(
        machine=machine_name(),
        engine=f"vLLM {vllm.__version__}",
        dtype=str(dtype).removeprefix("torch."),
        element_bytes=int(dtype.itemsize),
        requests=len(job.prompts),
        prompt_tokens=sum(map(len, engine.prompts)),
        new_tokens=job.new_tokens,
        runs=runs,
    )


class _Engine:
    """An engine and the prompts that it is asked again and again."""

    def __init__(self, llm: Any, job: Job) -> None:
        self._llm = llm.llm_engine
        self._tokens = job.new_tokens
        self._count = 0
        encode = llm.get_tokenizer().encode
        self.prompts: list[list[int]] = [list(encode(prompt)) for prompt in job.prompts]

    def rows(self, asked: str) -> dict[str, dict[str, int]]:
        """Return the edited rows of all requests together, by program and site."""
        import interv

        finished: dict[str, Any] = {}
        for _, outputs in self._steps(asked, report=True):
            finished |= {one.request_id: one for one in outputs if one.finished}
        found: dict[str, dict[str, int]] = {}
        for output in finished.values():
            rows = interv.edited_rows(output)
            assert isinstance(rows, dict)  # of one sample
            for program, sites in rows.items():
                total = found.setdefault(program, {})
                for site, count in sites.items():
                    total[site] = total.get(site, 0) + count
        return found

    def step_us(self, asked: str) -> tuple[float, ...]:
        """Return the times of the steps that give every request one more token."""
        from interv.errors import IntervError

        times = tuple(
            took
            for took, outputs in self._steps(asked, report=False)
            if len(outputs) == len(self.prompts)
            and all(len(one.outputs[0].token_ids) > 1 for one in outputs)
        )
        if not times:
            raise IntervError(
                "E547",
                f"no step held all {len(self.prompts)} requests, so none could be timed",
                helps=["give fewer or shorter prompts, or the engine more memory for its KV cache"],
            )
        return times

    def _steps(self, asked: str, *, report: bool) -> list[tuple[float, Sequence[Any]]]:
        from vllm import SamplingParams

        import interv

        said = interv.sampling_args(asked, report=report)
        for ids in self.prompts:
            self._count += 1
            params = SamplingParams(
                temperature=0.0, max_tokens=self._tokens, ignore_eos=True, detokenize=False, **said
            )
            self._llm.add_request(str(self._count), {"prompt_token_ids": ids}, params)
        found = []
        while self._llm.has_unfinished_requests():
            begin = time.perf_counter()
            outputs = self._llm.step()
            found.append(((time.perf_counter() - begin) * 1e6, outputs))
        return found


def machine_name() -> str:
    """Return what the engine runs on: a GPU's name, or the processor's and its cores."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}"


def main() -> int:
    """Run the job; an error of the user's documents goes to the result, not to a traceback."""
    from interv.errors import IntervError

    fields: Mapping[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    listed = {name: tuple(fields[name]) for name in ("files", "programs", "prompts")}
    job = Job(**{**fields, **listed})
    with Path(sys.argv[3]).open("a", encoding="utf-8", buffering=1) as steps:
        try:
            text = measure(job, lambda line: print(line, file=steps)).dump()
        except IntervError as error:
            text = json.dumps({"error": [str(error)]})
    Path(sys.argv[2]).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
