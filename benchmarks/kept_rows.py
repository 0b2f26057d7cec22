"""What keeping captured rows costs the engine's thread, a step: rows of R requests that decode.

python -m benchmarks.kept_rows [--requests 1 16 64 128] [--sites 30] [--width 4096]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from interv.runtime.captures.rows import Joiner, RequestTaken, StepTaken

STEPS, WARM = 200, 70


def measured(requests: int, sites: int, width: int) -> tuple[float, float]:
    """Return the mean and the 95th percentile of milliseconds a step.

    Requests began at different times, so that not all are due in one step.
    """
    joiner = Joiner()
    every = [RequestTaken([1], 1, joiner) for _ in range(requests)]
    begun = np.random.RandomState(0).randint(0, 64, requests)
    rows = torch.zeros(sites, requests, width, dtype=torch.bfloat16)
    hit, token = torch.ones(requests, dtype=torch.int64), torch.zeros(requests, dtype=torch.int64)
    spent = []
    for step in range(STEPS):
        taken = StepTaken(hit, torch.full((requests,), step), token, {0: rows})
        start = time.perf_counter()
        for r, one in enumerate(every):
            if step >= begun[r]:
                one.add(taken, r, r + 1)
        spent.append(1e3 * (time.perf_counter() - start))
        time.sleep(0.005)  # what the model takes
    for one in every:
        one.together()
    return float(np.mean(spent[WARM:])), float(np.percentile(spent[WARM:], 95))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 16, 64, 128])
    parser.add_argument("--sites", type=int, default=30)
    parser.add_argument("--width", type=int, default=4096)
    given = parser.parse_args()
    print("| requests | ms a step, mean | 95th percentile |\n|--:|--:|--:|")
    for requests in given.requests:
        mean, high = measured(requests, given.sites, given.width)
        print(f"| {requests} | {mean:.2f} | {high:.2f} |", flush=True)


if __name__ == "__main__":
    main()
