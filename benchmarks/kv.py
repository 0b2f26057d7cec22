"""`python -m benchmarks.kv`: a KV policy against stock vLLM, and what it costs in quality.

`memory`: long answers on a pool too small for stock, which preempts; the same blocks for both.
`quality`: perplexity of long texts that are compressed while they are read, and how often a
number is found again that stands in the middle of them, by policy and budget; with Transformers,
whose answers under a policy are the engine's token for token (`tests/kv/test_engine.py`).
`cost`: one compaction of all layers by the number of tokens held.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import RESULTS, _demo_model
from benchmarks.machine import machine

BLOCK = 32
# Sections of the reference of Python's standard library, which is English prose and long.
TOPICS = ("specialnames", "class", "formatstrings", "types", "import", "execmodel")
# From where on the perplexity of a text is counted.
START = 256
# How many tokens a request holds that is compacted.
LENGTHS = (192, 256, 512, 1024, 2048)
FILLER = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
)


class Job:
    """An engine in a process of its own, which does one thing and ends."""

    def __init__(self, policy: str | None, options: dict[str, Any], work: dict[str, Any]) -> None:
        self._job = {"policy": policy, "options": options, "work": work}

    def result(self) -> Any:
        """Run it and return what it says."""
        env = os.environ | {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_CI_ENV": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
        }
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "result.json"
            command = [sys.executable, "-m", "benchmarks.kv", "--child", str(out)]
            done = subprocess.run(
                command, input=json.dumps(self._job), text=True, env=env, capture_output=True
            )
            if done.returncode:
                raise SystemExit(done.stderr[-3000:])
            return json.loads(out.read_text())


def child(out: Path) -> None:
    """Make the engine of a job and do its work."""
    job = json.load(sys.stdin)
    from vllm import LLM

    options = dict(job["options"])
    if job["policy"] is not None:
        from interv import engine_args

        document = out.with_suffix(".interv")
        document.write_text(f"interv 1\nkv {job['policy']}\n")
        options |= engine_args(document)
    llm = LLM(**options)
    work = job["work"]
    out.write_text(json.dumps(_speed(llm, work)))


def _speed(llm: Any, work: dict[str, Any]) -> dict[str, Any]:
    """Generate long answers; return the seconds of each round, and how often a request yielded.

    `cpu` are seconds of this process on a core, which do not grow when others want the core too.
    """
    from vllm import SamplingParams

    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    yielded = 0
    plain = scheduler._preempt_request

    def preempt(*args: Any, **kwargs: Any) -> Any:
        nonlocal yielded
        yielded += 1
        return plain(*args, **kwargs)

    scheduler._preempt_request = preempt
    prompts = [
        {"prompt_token_ids": [(7 * i + j) % 1000 + 5 for j in range(32)]}
        for i in range(work["batch"])
    ]
    params = SamplingParams(
        max_tokens=work["tokens"], temperature=0, ignore_eos=True, detokenize=False
    )
    seconds, cpu = [], []
    for _ in range(work["rounds"]):
        begin, used = time.perf_counter(), time.process_time()
        llm.generate(prompts, params, use_tqdm=False)
        seconds.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - used)
    manager = scheduler.kv_cache_manager.coordinator.single_type_managers[0]
    tally = getattr(manager, "tally", None)
    counts = [] if tally is None else tally.counts.tolist()
    found = {"seconds": seconds, "cpu": cpu, "preemptions": yielded / work["rounds"]}
    return {**found, "counts": counts}


# What is measured -----------------------------------------------------------


def memory(args: argparse.Namespace) -> dict[str, Any]:
    """Measure throughput at equal KV memory."""
    blocks = args.blocks
    options = _options(args, num_gpu_blocks_override=blocks, max_model_len=32 + args.tokens)
    work = {"batch": args.batch, "tokens": args.tokens, "rounds": args.rounds}
    rows = []
    for name, policy in {"stock": None, "r1kv": args.policy}.items():
        found = Job(policy, options, work).result()
        made = args.batch * args.tokens
        speed = {
            "tok_s": made / statistics.median(found["seconds"]),
            "tok_cpu_s": made / statistics.median(found["cpu"]),
        }
        rows.append({"case": name, **speed, **found})
        print(rows[-1], file=sys.stderr, flush=True)
    for name in ("tok_s", "tok_cpu_s"):
        rows[1][f"ratio_{name}"] = rows[1][name] / rows[0][name]
    return {"blocks": blocks, "batch": args.batch, "tokens": args.tokens, "rows": rows}


def quality(args: argparse.Namespace) -> dict[str, Any]:
    """Measure perplexity and retrieval by policy and budget."""
    from benchmarks.kv_reader import Reader
    from interv.kv.settings import settings_of
    from interv.load import load_text

    reader = Reader(args.model)
    texts = list(_texts(reader.tokenizer, args.length))[: args.texts]
    questions, answers = _questions(reader.tokenizer, args.questions)
    rows = []
    for policy, budget in [
        (None, None),
        *((p, b) for b in args.budgets for p in ("r1kv", "snapkv", "streaming")),
    ]:
        text = policy and f"kv {policy} {{ budget = {budget} buffer = {args.buffer} prefill = on }}"
        settings = settings_of(load_text(f"interv 1\n{text or ''}\n"))
        every = [value for one in texts for value in reader.read(one, settings)[START - 1 :]]
        pairs = zip(questions, answers, strict=True)
        right = [reader.says(question, answer, settings) for question, answer in pairs]
        row = {"policy": policy or "full cache", "budget": budget}
        row["perplexity"] = math.exp(-statistics.fmean(every))
        rows.append(row | ({"found": statistics.fmean(right)} if right else {}))
        print(rows[-1], file=sys.stderr, flush=True)
    return {"buffer": args.buffer, "texts": len(texts), "tokens": args.length - START, "rows": rows}


def cost(args: argparse.Namespace) -> dict[str, Any]:
    """Measure one compaction's choice over all layers of the model, by the tokens of a text held.

    Milliseconds of one core.
    """
    import torch

    from benchmarks.kv_reader import Reader
    from interv.kv.policy import make_policy
    from interv.kv.settings import KvSettings

    own = (("lambda", 0.1), ("kernel", 7), ("threshold", 0.5))
    policy = make_policy(KvSettings(budget=128, own=own))
    reader = Reader(args.model)
    text = next(_texts(reader.tokenizer, max(LENGTHS)))
    torch.set_num_threads(1)
    rows = []
    for length in LENGTHS:
        keys, queries = reader.held(text[:length], policy.settings.window)
        took = []
        for _ in range(5):
            begin = time.process_time()
            policy.keep(keys, queries, keys.shape[-1] ** -0.5)
            took.append(time.process_time() - begin)
        rows.append({"tokens": length, "ms": 1e3 * statistics.median(took)})
    return {"rows": rows}


def _options(args: argparse.Namespace, **more: Any) -> dict[str, Any]:
    common = {"model": args.model, "dtype": "float32", "block_size": BLOCK}
    return {**common, "skip_tokenizer_init": True, "max_num_seqs": args.batch, **more}


def _texts(tokenizer: Any, length: int) -> Iterator[list[int]]:
    from pydoc_data.topics import topics

    for name in TOPICS:
        ids = tokenizer(topics[name], add_special_tokens=False)["input_ids"]
        if len(ids) >= length:
            yield ids[:length]


def _questions(tokenizer: Any, count: int) -> tuple[list[list[int]], list[list[int]]]:
    """Return texts in the middle of which a number stands, asked for at their end."""
    rng = random.Random(1)
    questions, answers = [], []
    for i in range(count):
        number = str(rng.randrange(10_000, 99_999))
        before, after = 4 + i % 10, 18 - i % 10
        text = "There is an important number hidden in this text. Remember it.\n"
        text += FILLER * before + f"\nThe pass key is {number}. Remember it. {number} is the"
        text += f" pass key.\n{FILLER * after}\nWhat is the pass key? The pass key is"
        questions.append(tokenizer(text, add_special_tokens=False)["input_ids"])
        answers.append(tokenizer(f" {number}", add_special_tokens=False)["input_ids"])
    return questions, answers


KINDS = {"memory": memory, "quality": quality, "cost": cost}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kv", description=__doc__)
    parser.add_argument("kind", nargs="?", choices=KINDS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--model", help="folder of the model (default: the demo's)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=960, help="tokens generated a request")
    parser.add_argument("--blocks", type=int, default=65, help=f"blocks of {BLOCK} tokens")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--policy", default="r1kv { budget = 128 buffer = 64 }")
    parser.add_argument("--budgets", type=int, nargs="*", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--buffer", type=int, default=128)
    parser.add_argument("--length", type=int, default=1536, help="tokens of a text")
    parser.add_argument("--texts", type=int, default=6)
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--save", metavar="NAME", help="write benchmarks/results/NAME.json")
    args = parser.parse_args()
    if args.child:
        return child(args.child)
    if args.kind is None:
        parser.error("say what is measured")
    args.model = args.model or _demo_model()
    found = KINDS[args.kind](args)
    _print(found)
    if args.save:
        arguments = {k: v for k, v in vars(args).items() if k not in ("child", "model")}
        facts = {"machine": machine(), "arguments": {**arguments, "model": Path(args.model).name}}
        text = json.dumps(facts | found, indent=2)
        (RESULTS / f"{args.save}.json").write_text(text + "\n")
    return None


def _print(found: dict[str, Any]) -> None:
    rows = found.get("rows")
    if not rows:
        Console().print(found)
        return
    table = Table()
    for name in rows[-1]:
        table.add_column(name)
    for row in rows:
        cells = [row.get(name, "") for name in rows[-1]]
        table.add_row(*(f"{c:.2f}" if isinstance(c, float) else str(c) for c in cells))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
