"""Answer prompts in one engine: `python -m interv.measuring.generate JOB RESULT`, JSON files both.

A process of its own, so that everything the engine prints and holds ends with it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Job:
    """What one engine shall do: a greedy answer to every chat prompt, by every expression."""

    model: str
    files: tuple[str, ...]
    prompts: tuple[str, ...]
    asked: tuple[str, ...]  # request expressions, all in one batch
    max_tokens: int

    def dump(self) -> str:
        """Return the job as JSON."""
        return json.dumps(asdict(self))


def answer(job: Job) -> dict[str, list[str]]:
    """Return the answers by expression, in the order of the prompts."""
    from vllm import LLM, SamplingParams

    import interv

    with tempfile.TemporaryDirectory(prefix="interv-") as folder:
        edits = interv.engine_args(*without_defaults(job.files, Path(folder)))
        engine = LLM(job.model, max_model_len=1024, max_num_seqs=64, **edits)
    chats = [[{"role": "user", "content": prompt}] for prompt in job.prompts]
    params = [
        SamplingParams(temperature=0.0, max_tokens=job.max_tokens, **interv.sampling_args(asked))
        for asked in job.asked
        for _ in chats
    ]
    outputs = engine.chat(chats * len(job.asked), params, use_tqdm=False)
    texts = [output.outputs[0].text for output in outputs]
    count = len(chats)
    return {asked: texts[i * count :][:count] for i, asked in enumerate(job.asked)}


def without_defaults(files: Iterable[str], folder: Path) -> list[Path]:
    """Write documents again without their defaults, of which one engine could have only one."""
    from interv.load import dump_json, load_document

    written = []
    for number, file in enumerate(files):
        document = load_document(file)
        vectors = tuple(
            one.model_copy(update={"path": str(document.root.resolve() / one.path)})
            for one in document.spec.vectors
        )
        spec = document.spec.model_copy(update={"default": None, "vectors": vectors})
        written.append(folder / f"{number}.json")
        written[-1].write_text(dump_json(spec), encoding="utf-8")
    return written


def main() -> int:
    """Run the job; an error of the user's documents goes to the result, not to a traceback."""
    from interv.errors import IntervError

    fields = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    listed = {name: tuple(fields[name]) for name in ("files", "prompts", "asked")}
    job = Job(model=fields["model"], max_tokens=fields["max_tokens"], **listed)
    try:
        result: dict[str, object] = {"answers": answer(job)}
    except IntervError as error:
        result = {"error": [str(error)]}
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
