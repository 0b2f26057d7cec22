"""One engine in a process of its own, paused while others are measured.

Reads commands from standard input, one JSON a line, and answers on the descriptor it is given.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    """Make the engine, then run one batch whenever asked."""
    job = json.loads(sys.stdin.readline())
    replies = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    from vllm import LLM

    options = dict(job["options"])
    if job["files"]:
        from interv import engine_args

        options |= engine_args(*job["files"])
    llm = LLM(job["model"], skip_tokenizer_init=True, **options)
    prompts = [
        {"prompt_token_ids": [(7 * i + j) % 1000 + 5 for j in range(job["prompt"])]}
        for i in range(job["batch"])
    ]
    print(json.dumps({"ready": True}), file=replies)
    for line in sys.stdin:
        params = [_params(job["tokens"], one) for one in json.loads(line)["asked"]]
        begin = time.perf_counter()
        _wait(llm.generate(prompts, params, use_tqdm=False))
        print(json.dumps({"seconds": time.perf_counter() - begin}), file=replies)


def _wait(outputs: list[Any]) -> None:
    """Wait until captured rows are in their files: what is left to do is time of this batch."""
    for output in outputs:
        if "interv_captures" in (output.kv_transfer_params or {}):
            from interv import capture_results

            assert all(one.status == "ok" for one in capture_results(output))


def _params(tokens: int, asked: str | None) -> Any:
    from vllm import SamplingParams

    extra = None if asked is None else {"intervention": asked}
    return SamplingParams(
        max_tokens=tokens, temperature=0, ignore_eos=True, detokenize=False, extra_args=extra
    )


if __name__ == "__main__":
    main()
