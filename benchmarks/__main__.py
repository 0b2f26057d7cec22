"""`python -m benchmarks`: decode throughput of every case against stock, interleaved.

All engines are up at the same time and idle but for the one that runs, so that a slow minute of
the machine falls on all of them. Reported are medians of the per-round ratios, with quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.cases import CASES, Case, document

RESULTS = Path(__file__).parent / "results"


class Engine:
    """A case's engine and the seconds of its rounds."""

    def __init__(self, case: Case, job: dict[str, Any], folder: Path, layers: int, size: int):
        self.case, self.seconds = case, list[float]()
        files = [str(path) for path in document(case, layers, size, folder)]
        reading, writing = os.pipe()
        self._replies = os.fdopen(reading)
        env = os.environ | {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
        }
        if not case.plugins:
            env["VLLM_PLUGINS"] = "none"
        self._log = (folder / f"{case.name}.log").open("wb")
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

    def round(self) -> float:
        """Run one batch and return its seconds."""
        return float(self._ask({})["seconds"])

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
    cases = [case for case in CASES if args.case in (None, case.name) or case.name == "stock"]
    options = {"dtype": args.dtype, "max_model_len": 512, "max_num_seqs": args.batch}
    job = {
        "model": model,
        "options": options,
        "tokens": args.tokens,
        "prompt": args.prompt,
        "batch": args.batch,
    }
    engines: list[Engine] = []
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True)) as bar:
        try:
            starting = bar.add_task("starting engines", total=len(cases) * args.instances)
            for case in cases * args.instances:
                engines.append(Engine(case, job, Path(folder), facts.num_layers, facts.hidden_size))
                bar.advance(starting)
            _measure(engines, args.rounds, bar)
        finally:
            for engine in engines:
                engine.close()
    _report(engines, args, model)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--model", help="folder of the model (default: the demo's)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=16, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=32, help="tokens generated a request")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--instances", type=int, default=2, help="engines of each case")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--case", help="measure this case alone against stock")
    parser.add_argument("--save", metavar="NAME", help="write benchmarks/results/NAME.json")
    return parser.parse_args()


def _demo_model() -> str:
    from interv.demo_model import demo_model_path

    return str(demo_model_path())


def _measure(engines: list[Engine], rounds: int, bar: Progress) -> None:
    """Run every engine once a round, in an order that turns, after one round to warm up."""
    task = bar.add_task("measuring", total=(rounds + 1) * len(engines))
    for number in range(rounds + 1):
        turn = number % len(engines)
        for engine in engines[turn:] + engines[:turn]:
            seconds = engine.round()
            if number:
                engine.seconds.append(seconds)
            bar.advance(task)


def _report(engines: list[Engine], args: argparse.Namespace, model: str) -> None:
    # Where a process lies in memory shifts its speed for good, so instances are pooled.
    pooled: dict[Case, list[float]] = {}
    for engine in engines:
        pooled.setdefault(engine.case, []).extend(engine.seconds)
    stock = engines[0].case
    tokens = args.batch * args.tokens
    table = Table(title=f"{args.batch} requests × {args.tokens} tokens, {args.dtype}")
    for name in ("case", "tok/s", "against stock", "quartiles", "target"):
        table.add_column(name, justify="left" if name == "case" else "right")
    rows = []
    for case, seconds in pooled.items():
        ratios = [own / base - 1 for own, base in zip(seconds, pooled[stock], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        speed = tokens / statistics.median(seconds)
        target = f"≤ {case.target} %" if case.target is not None else ""
        spread = f"{low:+.1%} … {high:+.1%}"
        table.add_row(case.name, f"{speed:.0f}", f"{middle:+.1%}", spread, target)
        rows.append({"case": case.name, "median": middle, "quartiles": [low, high], "tok_s": speed})
    Console(width=100).print(table)
    if args.save:
        RESULTS.mkdir(exist_ok=True)
        facts = {"machine": _machine(), "arguments": vars(args) | {"model": Path(model).name}}
        text = json.dumps(facts | {"rows": rows}, indent=2)
        (RESULTS / f"{args.save}.json").write_text(text + "\n")


def _machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1] for line in info.read_text().splitlines() if "model name" in line]
    return {
        "cpu": names[0].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "when": datetime.now(UTC).date().isoformat(),
        **{name: metadata.version(name) for name in ("torch", "vllm", "interv")},
    }


if __name__ == "__main__":
    main()
