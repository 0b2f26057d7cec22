"""One engine in a process of its own: the median seconds of batches of several sizes."""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from typing import Any

from benchmarks.cases import Case
from benchmarks.gpu.speed import PROMPT, ROUNDS


def main() -> None:
    """Read a job from standard input, and print the seconds as the last line."""
    job = json.loads(sys.stdin.read())
    from vllm import LLM

    options = dict(job["options"])
    if job["files"]:
        from interv import engine_args

        options |= engine_args(*job["files"])
    llm = LLM(job["model"], skip_tokenizer_init=True, **options)
    print(json.dumps({str(one): _seconds(llm, job, one) for one in job["batches"]}), flush=True)


def _seconds(llm: Any, job: dict[str, Any], batch: int) -> float:
    from vllm import SamplingParams

    rng = random.Random(0)
    prompts = [
        {"prompt_token_ids": [rng.randrange(10, job["vocabulary"]) for _ in range(PROMPT)]}
        for _ in range(batch)
    ]
    params = [
        SamplingParams(
            max_tokens=job["tokens"],
            temperature=0,
            ignore_eos=True,
            detokenize=False,
            extra_args=None if asked is None else {"intervention": asked},
        )
        for asked in Case("", None, "", job["configurations"]).asked(batch)
    ]
    spent = []
    for _ in range(ROUNDS + 1):  # the first warms up
        begin = time.perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent[1:])


if __name__ == "__main__":
    main()
