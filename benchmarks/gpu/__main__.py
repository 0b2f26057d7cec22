"""`make gpu`, or `python -m benchmarks.gpu [PART …]`: what only a CUDA card can say.

Each part is a process of its own with a time limit; what it found is a JSON file in the folder
of the run, so a run that was cut short goes on where it was. It ends in one JSON file and one
Markdown page. On a machine without a card the parts run on the CPU with `--standin`, which shows
that the command works and says nothing about a card.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.gpu.page import page
from benchmarks.gpu.parts import PARTS, Part
from benchmarks.machine import machine

RESULTS = Path(__file__).parents[1] / "results"
ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run the parts that were asked for and have no result yet; return 1 where one failed."""
    args = _arguments()
    console = Console(stderr=True)
    card = _card()
    if card is None and not args.standin:
        console.print("No CUDA card is here. --standin tries the command itself on the CPU.")
        return 2
    folder = Path(args.folder or RESULTS / "gpu" / _called(card))
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [part for part in PARTS if part.name in (args.part or [p.name for p in PARTS])]
    for part in wanted:
        file = folder / f"{part.name}.json"
        if file.exists() and not args.again and json.loads(file.read_text())["passed"]:
            console.print(f"{part.name}: known", style="dim")
            continue
        console.print(f"{part.name}: {part.about}")
        found = _run(part, folder, args.standin)
        file.write_text(json.dumps(found, indent=2) + "\n")
        state = "fine" if found["passed"] else "FAILED"
        console.print(
            f"  {state}, {found['seconds']:.0f} s", style="green" if found["passed"] else "red"
        )
    return _finish(folder, card, console)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts:\n" + "\n".join(f"  {part.name:14} {part.about}" for part in PARTS),
    )
    parser.add_argument("part", nargs="*", choices=[[], *(part.name for part in PARTS)])
    parser.add_argument("--again", action="store_true", help="run parts that have a result anew")
    parser.add_argument("--folder", help="where results go (default: benchmarks/results/gpu/CARD)")
    parser.add_argument("--standin", action="store_true", help="try the command on the CPU")
    return parser.parse_args()


def _card() -> dict[str, Any] | None:
    import torch

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return {
        "name": found.name,
        "memory_gib": round(found.total_memory / 2**30, 1),
        "capability": f"{found.major}.{found.minor}",
        "processors": found.multi_processor_count,
        "cuda": torch.version.cuda,
    }


def _called(card: dict[str, Any] | None) -> str:
    name = card["name"] if card else "standin"
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def _run(part: Part, folder: Path, standin: bool) -> dict[str, Any]:
    """Run one part to its end or its limit, and return what it found."""
    out = folder / f"{part.name}.found.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m"]
    if part.tests:
        command += ["pytest", "-q", "-x", "-p", "no:cacheprovider", *part.tests]
    else:
        command += ["benchmarks.gpu.measured", part.measure, str(out), *["--standin"] * standin]
    begin = time.monotonic()
    with (folder / f"{part.name}.log").open("wb") as log:
        child = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, env=_environment(standin),
            start_new_session=True,
        )  # fmt: skip
        try:
            code = child.wait(part.limit_s)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as ended:
            os.killpg(child.pid, 9)
            child.wait()
            if isinstance(ended, KeyboardInterrupt):
                raise
            code = "it ran out of time"
    found = json.loads(out.read_text()) if out.exists() else {}
    out.unlink(missing_ok=True)
    text = (folder / f"{part.name}.log").read_text(errors="replace").strip()
    lines = text.splitlines()
    # With pytest's code 5 nothing was collected, which is no success.
    passed = code == 0
    return {
        "part": part.name,
        "about": part.about,
        "passed": passed,
        "code": code,
        "seconds": time.monotonic() - begin,
        "said": lines[-1] if passed and lines else "\n".join(lines[-30:]),
        **found,
    }


def _environment(standin: bool) -> dict[str, str]:
    own = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if standin:
        own |= {"INTERV_STANDIN": "traced", "VLLM_CPU_KVCACHE_SPACE": "1"}
    else:
        own["INTERV_TEST_DEVICE"] = "cuda"
    return os.environ | own


def _finish(folder: Path, card: dict[str, Any] | None, console: Console) -> int:
    files = [folder / f"{part.name}.json" for part in PARTS]
    parts = [json.loads(file.read_text()) for file in files if file.exists()]
    result = {"machine": machine(), "card": card, "parts": parts}
    (folder / "all.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "README.md").write_text(page(result))
    failed = [part["part"] for part in parts if not part["passed"]]
    left = len(PARTS) - len(parts)
    console.print(f"{folder / 'README.md'}: {len(parts)} parts, {len(failed)} failed, {left} left")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
