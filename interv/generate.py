"""Answer prompts in one vLLM engine: `python -m interv.generate JOB RESULT`, both JSON files.

A process of its own, so that an engine's memory is free again before the next one starts.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Job:
    """What one engine shall do: greedy answers to chat prompts, under these documents."""

    model: str
    files: tuple[str, ...]
    prompts: tuple[str, ...]
    max_tokens: int

    def dump(self) -> str:
        """Return the job as JSON."""
        return json.dumps(asdict(self))


def answer(job: Job) -> list[str]:
    """Return the answers, in the order of the prompts."""
    from vllm import LLM, SamplingParams

    import interv

    edits = interv.engine_args(*job.files) if job.files else {}
    engine = LLM(job.model, max_model_len=1024, max_num_seqs=16, **edits)
    chats = [[{"role": "user", "content": prompt}] for prompt in job.prompts]
    greedy = SamplingParams(temperature=0.0, max_tokens=job.max_tokens)
    outputs = engine.chat(chats, greedy, use_tqdm=False)
    return [output.outputs[0].text for output in outputs]


def main() -> int:
    """Run the job; an error of the user's documents goes to the result, not to a traceback."""
    from interv.errors import IntervError

    fields = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    job = Job(
        fields["model"], tuple(fields["files"]), tuple(fields["prompts"]), fields["max_tokens"]
    )
    try:
        result = {"answers": answer(job)}
    except IntervError as error:
        result = {"error": [str(error)]}
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
