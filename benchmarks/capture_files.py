"""What captured rows take on disk: files and bytes of each layout, size and error of each form.

    python -m benchmarks.capture_files --save

The rows are made here, as much like a model's as is known without one: a mean that most rows
share, singular values that fall by a power, a few coordinates that are far larger than the rest.
With `--captures FOLDER` the forms are those of rows that a real engine has captured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from interv.captures import load_captures
from interv.sinks.compress import Quantize, pack
from interv.sinks.filesystem import Filesystem
from interv.sinks.reading import CaptureFile
from interv.sinks.record import Captured, Part

RESULTS = Path(__file__).parent / "results" / "capture-files.json"
REQUESTS, TOKENS, WIDTH = 16, 512, 576
LAYERS = (5, 15, 25)
LAYOUTS = ("packed", "per_file", "sharded")
# The exponents by which singular values fall: white noise, and what streams are measured to be.
ROWS = {"noise": 0.0, "low rank": 1.0}


def main() -> None:
    """Measure and report."""
    name = "python -m benchmarks.capture_files"
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--captures", type=Path, help="rows to measure the forms of")
    args = parser.parse_args()
    # Times are those of the processor on one thread: other work on the machine is not in them.
    torch.set_num_threads(1)
    results = {
        "machine": machine("safetensors"),
        "work": _work() | ({"model": _model(args.captures)} if args.captures else {}),
        "layouts": _layouts(),
        "forms": _forms(args.captures),
    }
    _report(results)
    if args.save:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def stream(tokens: int, width: int, fall: float, seed: int = 0) -> torch.Tensor:
    """Return rows [tokens, width] in bfloat16 whose singular values fall as i ** -fall."""
    generator = torch.Generator().manual_seed(seed)
    count = min(tokens, width)
    left, _ = torch.linalg.qr(torch.randn(tokens, count, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(width, count, generator=generator))
    values = torch.arange(1, count + 1).float() ** -fall
    rows = (left * values) @ right.T * (tokens * width / values.square().sum()).sqrt()
    if fall:
        rows += torch.randn(width, generator=generator)
        rows[:, :3] *= 20
    return rows.to(torch.bfloat16)


def record(number: int, fall: float = 1.0, rank: int | None = None) -> Captured:
    """Return what one request of the benchmark captures at `LAYERS`."""
    position = torch.arange(TOKENS)
    parts = tuple(
        Part("post_block", layer, False, stream(TOKENS, WIDTH, fall, 100 * number + layer), *_two)
        for layer in LAYERS
        for _two in [(position, position % 997)]
    )
    return Captured(
        request=f"cmpl-{number}",
        sample=0,
        tag="",
        program="look",
        statement="look.interv:4",
        digest="0" * 64,
        model="made",
        prompt_tokens=TOKENS // 2,
        tokens=TOKENS + 1,
        ended="finished",
        rank=rank,
        parts=parts,
    )


def _layouts() -> list[dict[str, Any]]:
    records = [record(i) for i in range(REQUESTS)]
    rows = []
    for layout in LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            options = {"folder": folder, "layout": layout}
            sink = Filesystem(Filesystem.Options.model_validate(options), Path("/"))
            begin = time.thread_time()
            for one in records:
                sink.put(one)
            sink.close()
            seconds = time.thread_time() - begin
            files = list(Path(folder).glob("*.safetensors"))
            rows.append(
                {
                    "layout": layout,
                    "files": len(files) / REQUESTS,
                    "bytes": sum(file.stat().st_size for file in files) / REQUESTS,
                    "manifest_bytes": (Path(folder) / "manifest.jsonl").stat().st_size / REQUESTS,
                    "cpu_ms": 1e3 * seconds / REQUESTS,
                }
            )
    return rows


def _rows(captures: Path | None) -> dict[str, torch.Tensor]:
    """Return the rows to compress by name: made ones, or the longest part of each real place."""
    if captures is None:
        return {kind: stream(TOKENS, WIDTH, fall) for kind, fall in ROWS.items()}
    rows: dict[str, torch.Tensor] = {}
    for piece in load_captures(captures).pieces:
        with CaptureFile(piece.path) as file:
            if piece.count > len(rows.get(piece.part.name, ())):
                rows[piece.part.name] = file.rows(piece.part)
    return rows


def _forms(captures: Path | None) -> list[dict[str, Any]]:
    wanted: list[tuple[str, int | None, Quantize]] = [("whole", None, "none")]
    wanted += [(f"rank {k}", k, "none") for k in (8, 32, 64, 128)]
    wanted += [("int8", None, "int8"), ("fp8", None, "fp8")]
    rows = []
    for kind, made in _rows(captures).items():
        for name, rank, quantize in wanted:
            begin = time.thread_time()
            packed = pack(made, rank, quantize)
            seconds = time.thread_time() - begin
            size = sum(tensor.nbytes for tensor in packed.tensors.values())
            rows.append(
                {
                    "rows": kind,
                    "form": name,
                    "share": size / made.nbytes,
                    "error": packed.error,
                    "cpu_ms": 1e3 * seconds,
                }
            )
    return rows


def _report(results: dict[str, Any]) -> None:
    console = Console(width=100)
    for name in ("layouts", "forms"):
        table = Table(title=name)
        for column in results[name][0]:
            table.add_column(column, justify="right")
        for row in results[name]:
            values = (f"{one:.4g}" if isinstance(one, float) else str(one) for one in row.values())
            table.add_row(*values)
        console.print(table)


def markdown(path: Path = RESULTS) -> str:
    """Return the results as the two tables of docs/captures.md."""
    results: dict[str, Any] = json.loads(path.read_text())
    work, machine = results["work"], results["machine"]
    lines = [
        "| layout | files a request | bytes a request | of the manifest | CPU time a request |"
    ]
    lines.append("|---|---|---|---|---|")
    for row in results["layouts"]:
        lines.append(
            f"| `{row['layout']}` | {row['files']:g} | {row['bytes']:,.0f} "
            f"| {row['manifest_bytes']:,.0f} | {row['cpu_ms']:.1f} ms |"
        )
    lines += ["", "| rows | form | size | error | CPU time |", "|---|---|---|---|---|"]
    for row in results["forms"]:
        lines.append(
            f"| {row['rows']} | {row['form']} | {row['share']:.1%} | {row['error']:.2g} "
            f"| {row['cpu_ms']:.1f} ms |"
        )
    lines += [
        "",
        f"Layouts: {work['requests']} requests, {len(work['layers'])} places each of "
        f"{work['tokens']} made rows of width {work['width']} in bfloat16.",
        f"Forms: {_forms_of(work)};",
        f"{machine['cores']} cores of {machine['cpu']}, torch {machine['torch']}, "
        f"{machine['when']}.",
        "Again: `python -m benchmarks.capture_files --save --captures FOLDER`.",
    ]
    return "\n".join(lines)


def _forms_of(work: Mapping[str, Any]) -> str:
    rows = (
        f"{work['tokens']} rows of a prompt of {work['model']}" if "model" in work else "made rows"
    )
    return f"{rows}, of the same width and dtype"


def _model(captures: Path) -> str:
    return load_captures(captures).records[0].model


def _work() -> dict[str, Any]:
    return {"requests": REQUESTS, "tokens": TOKENS, "width": WIDTH, "layers": list(LAYERS)}


if __name__ == "__main__":
    main()
