"""`python -m benchmarks`: decode throughput of every case against stock, interleaved.

All engines are up at the same time and idle but for the one that runs, so that a slow minute of
the machine falls on all of them. Reported are medians of the per-round ratios, with quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.cases import RUNS, WORK, Case, document
from benchmarks.machine import machine

RESULTS = Path(__file__).parent / "results"


class Engine:
    """An engine of a process of its own."""

    def __init__(self, name: str, job: dict[str, Any], folder: Path, layers: int, size: int):
        self.name = name
        files = [str(path) for path in document(name, layers, size, folder)]
        reading, writing = os.pipe()
        self._replies = os.fdopen(reading)
        env = os.environ | {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
        }
        if name == "stock":
            env["VLLM_PLUGINS"] = "none"
        self._log = (folder / f"{name}.log").open("ab")
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.engine", str(writing)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[writing],
            env=env,
            text=True,
        )
        os.close(writing)
        self._ask(job | {"files": files})

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(message) + "\n")
        self._child.stdin.flush()
        line = self._replies.readline()
        if not line:
            raise SystemExit(Path(self._log.name).read_text()[-3000:])
        reply: dict[str, Any] = json.loads(line)
        return reply

    def round(self, asked: list[str | None]) -> float:
        """Run one batch and return its seconds."""
        return float(self._ask({"asked": asked})["seconds"])

    def close(self) -> None:
        """End the engine's process."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(30)
        self._log.close()


def main() -> None:
    """Measure and report."""
    args = _arguments()
    from interv.model import model_facts

    model = args.model or _demo_model()
    facts = model_facts(model)
    cases = [case for case in RUNS[args.run] if args.case in (None, case.name, case.engine)]
    cases = [case for case in RUNS[args.run] if case.name == "stock" or case in cases]
    options = {"dtype": args.dtype, "max_model_len": 512, "max_num_seqs": args.batch}
    job = {
        "model": model,
        "options": options,
        "tokens": args.tokens,
        "prompt": args.prompt,
        "batch": args.batch,
    }
    names = [*dict.fromkeys(case.engine for case in cases)]
    engines: list[Engine] = []
    seconds: dict[Case, list[float]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True)) as bar:
        try:
            starting = bar.add_task("starting engines", total=len(names) * args.instances)
            for name in names * args.instances:
                engines.append(Engine(name, job, Path(folder), facts.num_layers, facts.hidden_size))
                bar.advance(starting)
            _measure(engines, seconds, args, bar)
        finally:
            for engine in engines:
                engine.close()
    _report(seconds, args, model)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--model", help="folder of the model (default: the demo's)")
    parser.add_argument("--run", choices=RUNS, help="which cases to measure")
    parser.add_argument("--batch", type=int, help="requests at once")
    parser.add_argument("--prompt", type=int, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, help="tokens generated a request")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--instances", type=int, default=2, help="engines of each case")
    parser.add_argument("--dtype")
    parser.add_argument("--case", help="measure this case or engine alone against stock")
    parser.add_argument("--save", metavar="NAME", help="write benchmarks/results/NAME.json")
    parser.set_defaults(**WORK)
    return parser.parse_args()


def _demo_model() -> str:
    from interv.demo.model import demo_model_path

    return str(demo_model_path())


def _measure(
    engines: list[Engine],
    seconds: dict[Case, list[float]],
    args: argparse.Namespace,
    bar: Progress,
) -> None:
    """Run every case on every engine of its kind once a round, in an order that turns."""
    count = len(engines) // args.instances
    # Instances one after the other, so that a case stands next to the stock of its own instance.
    turns = [
        (case, engine)
        for start in range(0, len(engines), count)
        for case in seconds
        for engine in engines[start : start + count]
        if engine.name == case.engine
    ]
    task = bar.add_task("measuring", total=(args.rounds + 1) * len(turns))
    for number in range(args.rounds + 1):
        turn = number % len(turns)
        took: dict[Case, list[float]] = {}
        for case, engine in turns[turn:] + turns[:turn]:
            took.setdefault(case, []).append(engine.round(case.asked(args.batch)))
            bar.advance(task)
        # The first round warms up.
        for case, own in took.items() if number else ():
            seconds[case] += own


def _report(seconds: dict[Case, list[float]], args: argparse.Namespace, model: str) -> None:
    stock = next(iter(seconds))
    tokens = args.batch * args.tokens
    table = Table(title=f"{args.batch} requests × {args.tokens} tokens, {args.dtype}")
    for name in ("case", "tok/s", "against stock", "quartiles", "target"):
        table.add_column(name, justify="left" if name == "case" else "right")
    rows = []
    for case, took in seconds.items():
        ratios = [own / base - 1 for own, base in zip(took, seconds[stock], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        speed = tokens / statistics.median(took)
        target = f"≤ {case.target} %" if case.target is not None else ""
        spread = f"{low:+.1%} … {high:+.1%}"
        table.add_row(case.name, f"{speed:.0f}", f"{middle:+.1%}", spread, target)
        rows.append({"case": case.name, "median": middle, "quartiles": [low, high], "tok_s": speed})
    Console(width=100).print(table)
    if args.save:
        RESULTS.mkdir(exist_ok=True)
        facts = {"machine": machine(), "arguments": vars(args) | {"model": Path(model).name}}
        text = json.dumps(facts | {"rows": rows}, indent=2)
        (RESULTS / f"{args.save}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
