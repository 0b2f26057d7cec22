"""`python -m benchmarks.steering`: how far a vector moves a model, by the scale it is given.

A model is steered with a joy vector, and asked how likely it finds joyful and gloomy answers to
questions that the vector was not made from. Their log-odds, per token, should rise with the scale;
how likely both are together says what the steering costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

ROOT = Path(__file__).parents[1]
TEXTS = Path(__file__).with_name("steering.jsonl")
RESULTS = Path(__file__).parent / "results"
SCALES = tuple(range(-8, 9))
# Of the distance between gloomy and joyful answers, at each layer, one step of the scale.
STEP = 0.1
# Small differences of log-probabilities are what is measured.
DTYPE = "float32"


@dataclass(frozen=True)
class Point:
    """What a scale did: means over the questions, in nats per token of an answer."""

    scale: float
    log_odds: float  # of joyful against gloomy answers
    quartiles: tuple[float, float]
    logprob: float  # of both answers


def main() -> None:
    """Measure, print, and where asked save the numbers and draw them."""
    args = _arguments()
    args.model = args.model or _demo_model()
    points = measure(args.model, args.vector, args.layers)
    for one in points:
        print(
            f"{one.scale * STEP:+5.1f}  log-odds {one.log_odds:+.3f}  log-prob {one.logprob:+.3f}"
        )
    low, high = (end * STEP for end in monotone_range(points))
    print(f"the log-odds rise with the scale from {low:+.1f} to {high:+.1f}")
    if args.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{args.save}.json").write_text(
            json.dumps(_facts(args, points), indent=2) + "\n"
        )
    if args.plot:
        draw(points, args.plot)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steering", description=__doc__)
    parser.add_argument("--model", help="folder of the model (default: the demo's)")
    parser.add_argument("--vector", type=Path, default=ROOT / "examples" / "vectors" / "joy.gguf")
    parser.add_argument("--layers", default="10..20", help="of post_block")
    parser.add_argument("--save", metavar="NAME", help="write benchmarks/results/NAME.json")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    return parser.parse_args()


def _demo_model() -> str:
    from interv.demo.model import demo_model_path

    return str(demo_model_path())


def measure(model: str, vector: Path, layers: str) -> list[Point]:
    """Return a point for every scale, all of them from one engine."""
    from transformers import AutoTokenizer
    from vllm import LLM, SamplingParams

    import interv
    from interv.extract import read_pairs
    from interv.extract.tokens import Tokens, Wording, tokenize

    sides = tokenize(read_pairs(TEXTS), Wording(), AutoTokenizer.from_pretrained(model))
    texts: list[Tokens] = [*sides[0], *sides[1]]
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "steering.interv"
        document.write_text(
            f'interv 1\nvector joy = "{vector.resolve()}"\n'
            f"program joy {{ steer joy at post_block[{layers}] scale {STEP} }}\n"
        )
        options: dict[str, Any] = {"max_model_len": 512}
        llm = LLM(model, dtype=DTYPE, **options, **interv.engine_args(document))
    params = [
        SamplingParams(
            max_tokens=1,
            temperature=0,
            prompt_logprobs=0,
            detokenize=False,
            **interv.sampling_args(f"joy*{scale}" if scale else "off"),
        )
        for scale in SCALES
        for _ in texts
    ]
    prompts = [{"prompt_token_ids": list(text.ids)} for text in texts] * len(SCALES)
    outputs = llm.generate(prompts, params, use_tqdm=False)
    scores = [_score(one, text) for one, text in zip(outputs, texts * len(SCALES), strict=True)]
    size = len(texts)
    return [_point(k, scores[i * size : (i + 1) * size]) for i, k in enumerate(SCALES)]


def _score(output: Any, text: Any) -> float:
    """Return the mean log-probability of an answer's tokens."""
    steps = output.prompt_logprobs[text.start : text.stop]
    ids = text.ids[text.start : text.stop]
    return statistics.fmean(step[token].logprob for token, step in zip(ids, steps, strict=True))


def _point(scale: float, scores: Sequence[float]) -> Point:
    half = len(scores) // 2
    odds = [a - b for a, b in zip(scores[:half], scores[half:], strict=True)]
    low, _, high = statistics.quantiles(odds, n=4, method="inclusive")
    return Point(scale, statistics.fmean(odds), (low, high), statistics.fmean(scores))


def monotone_range(points: Sequence[Point]) -> tuple[float, float]:
    """Return the widest range around 0 in which every step of the scale raises the log-odds."""
    middle = [one.scale for one in points].index(0)
    first = last = middle
    while first > 0 and points[first - 1].log_odds < points[first].log_odds:
        first -= 1
    while last + 1 < len(points) and points[last + 1].log_odds > points[last].log_odds:
        last += 1
    return points[first].scale, points[last].scale


def _facts(args: argparse.Namespace, points: Sequence[Point]) -> dict[str, Any]:
    from interv.vectors import read_vectors

    work = {
        "model": Path(args.model).name,
        "dtype": DTYPE,
        "vector": f"sha256:{read_vectors(args.vector).digest}",
        "layers": args.layers,
        "step": STEP,
        "questions": len(TEXTS.read_text(encoding="utf-8").splitlines()),
    }
    rows = [
        {
            "scale": one.scale,
            "log_odds": round(one.log_odds, 5),
            "quartiles": [round(x, 5) for x in one.quartiles],
            "logprob": round(one.logprob, 5),
        }
        for one in points
    ]
    return {"machine": machine(), "work": work, "monotone": monotone_range(points), "rows": rows}


def markdown(path: Path) -> str:
    """Return saved results as a table, with the machine and the work below it."""
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    where, work = results["machine"], results["work"]
    lines = ["| scale | log-odds | quartiles | log-probability |", "|---|---|---|---|"]
    for row in results["rows"]:
        low, high = row["quartiles"]
        lines.append(
            f"| {row['scale'] * work['step']:+.1f} | {row['log_odds']:+.2f} "
            f"| {low:+.2f} … {high:+.2f} | {row['logprob']:+.2f} |"
        )
    low, high = (end * work["step"] for end in results["monotone"])
    lines += [
        "",
        f"The log-odds rise with every step of the scale from {low:+.1f} to {high:+.1f}.",
        f"{work['model']}, {work['dtype']}, post_block[{work['layers']}],",
        f"{work['questions']} questions; {where['cores']} cores of {where['cpu']},",
        f"vLLM {where['vllm']}, torch {where['torch']}, {where['when']}. Again:",
        "`python -m benchmarks.steering --save steering --plot docs/steering.png`.",
    ]
    return "\n".join(lines)


def draw(points: Sequence[Point], path: Path) -> None:
    """Write the curve as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    other = axes.twinx()
    scales = [one.scale * STEP for one in points]
    low, high = (end * STEP for end in monotone_range(points))
    axes.axvspan(low, high, color="#f1f5f9", label="rises with the scale")
    axes.axhline(0, color="#475569", lw=0.8, ls=":")
    lower, upper = ([one.quartiles[i] for one in points] for i in (0, 1))
    axes.fill_between(scales, lower, upper, color="#c2410c", alpha=0.15, lw=0)
    odds = [one.log_odds for one in points]
    axes.plot(scales, odds, "o-", color="#c2410c", ms=4, label="log-odds, joyful against gloomy")
    both = [one.logprob for one in points]
    other.plot(scales, both, "s--", color="#1d4ed8", ms=3, label="log-probability of both")
    axes.set_xlabel("scale of the joy vector, at each of its layers")
    axes.set_ylabel("log-odds per token (nats)")
    other.set_ylabel("log-probability per token (nats)")
    axes.legend(loc="upper left", fontsize=8)
    other.legend(loc="lower center", fontsize=8)
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
