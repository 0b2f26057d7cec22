"""Run texts through a model in vLLM and keep the stream: `python -m interv.extract.forward …`.

The stream is captured by a program like any other, so what is read here is what an edit at the
same site changes. All that the engine prints and holds ends with the process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from interv.errors import IntervError, raise_all
from interv.extract.job import ACTIVATIONS, DONE, MEAN, Job, dump_error, load_job
from interv.extract.tokens import Tokens, tokenize, uses_chat

if TYPE_CHECKING:
    from interv.sinks.record import Captured

PROGRAM = "activations"
BATCH_BYTES = 256 << 20  # of captured rows at a time
MOST_REQUESTS = 64
PATIENCE_S = 120.0


def run(job: Job, tell: Callable[[str], None]) -> dict[str, Any]:
    """Leave the job's activations in its folder, and return facts of the engine that made them.

    Raises E286 for a text whose activations are not finite, E288 for texts that are too long,
    E289 for what the tokenizer lacks, E549 where rows are missing.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.model)
    positive, negative = tokenize(job.pairs, job.wording, tokenizer)
    engine = _Engine(job)
    texts = [*positive, *negative]
    engine.check(texts)
    tell(f"reading activations of {len(texts)} texts")
    shape = (2, len(job.pairs), len(job.layers), engine.width)
    made: Callable[..., np.memmap[Any, np.dtype[np.float32]]] = np.lib.format.open_memmap
    path = Path(job.folder) / ACTIVATIONS
    out = made(path, mode="w+", dtype=np.float32, shape=shape)
    flat = out.reshape(len(texts), *shape[2:])
    for first, batch in engine.batches(texts):
        flat[first : first + len(batch)] = engine.read(batch)
        tell(f"{DONE}{first + len(batch)}")
    out.flush()
    _check_finite(out, job)
    return engine.facts() | {"chat": uses_chat(job.wording, tokenizer)}


class _Engine:
    """A vLLM engine that captures every request's stream."""

    def __init__(self, job: Job) -> None:
        import vllm

        import interv

        document = Path(job.folder) / "activations.interv"
        document.write_text(document_text(job), encoding="utf-8")
        self._job = job
        self._llm = vllm.LLM(
            job.model,
            dtype=job.dtype,
            max_model_len=-1,  # as long as the memory allows
            max_num_seqs=MOST_REQUESTS,
            skip_tokenizer_init=True,
            # Captured tokens are run again anyway.
            enable_prefix_caching=False,
            **interv.engine_args(document),
        )
        config = self._llm.llm_engine.vllm_config.model_config
        self.width: int = config.get_hidden_size()
        self._longest: int = config.max_model_len
        self._dtype = str(config.dtype).removeprefix("torch.")

    def facts(self) -> dict[str, str]:
        """Return what the engine was made of."""
        import torch
        import vllm

        return {"dtype": self._dtype, "vllm": vllm.__version__, "torch": torch.__version__}

    def check(self, texts: Sequence[Tokens]) -> None:
        """Raise E288 for texts too long for the engine, or too short for the job's position."""
        most = self._longest - 1  # one token is generated
        least = 1 if self._job.position == MEAN else -int(self._job.position)
        errors = []
        for pair, text in zip([*self._job.pairs] * 2, texts, strict=True):
            count = len(text.ids)
            if not least <= count <= most:
                wanted = f"{most} fit into this engine" if count > most else f"{least} are needed"
                message = f"a text of {pair.where} has {count} tokens, {wanted}"
                errors.append(IntervError("E288", message))
        raise_all(errors)

    def batches(self, texts: Sequence[Tokens]) -> Iterator[tuple[int, Sequence[Tokens]]]:
        """Yield the texts in batches whose captured rows are no more than `BATCH_BYTES`."""
        row = len(self._job.layers) * self.width * 4
        first, size = 0, 0
        for place, text in enumerate(texts):
            own = row * (len(text.ids) if self._job.position == MEAN else 1)
            if place > first and (size + own > BATCH_BYTES or place - first == MOST_REQUESTS):
                yield first, texts[first:place]
                first, size = place, 0
            size += own
        yield first, texts[first:]

    def read(self, texts: Sequence[Tokens]) -> npt.NDArray[np.float32]:
        """Return the activations of texts, [n, L, H]."""
        from vllm import SamplingParams

        import interv

        params = SamplingParams(
            temperature=0.0, max_tokens=1, detokenize=False, **interv.sampling_args(PROGRAM)
        )
        prompts = [{"prompt_token_ids": list(text.ids)} for text in texts]
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        rows = []
        for text, output in zip(texts, outputs, strict=True):
            found = interv.captured(output, timeout_s=PATIENCE_S)
            rows.append(stream_of(text, found, self._job))
        return np.stack(rows)


def document_text(job: Job) -> str:
    """Return the document that captures what the job asks for."""
    layers = ", ".join(map(str, job.layers))
    tokens = "prompt" if job.position == MEAN else f"prompt[{job.position}]"
    return (
        "interv 1\n"
        "sink rows = memory()\n"
        f"program {PROGRAM} {{\n"
        f"  capture at {job.site}[{layers}] tokens {tokens} to rows\n"
        "}\n"
    )


def stream_of(text: Tokens, captured: Sequence[Captured], job: Job) -> npt.NDArray[np.float32]:
    """Return the stream [L, H] of one text at the job's position; raise E549 for missing rows."""
    parts = {part.layer: part for one in captured for part in one.parts if part.site == job.site}
    span = range(text.start, text.stop)
    if job.position != MEAN:
        place = len(text.ids) + int(job.position)
        span = range(place, place + 1)
    rows = []
    for layer in job.layers:
        part = parts.get(layer)
        have = [] if part is None else part.position.tolist()
        if part is None or not set(span) <= set(have):
            raise IntervError(
                "E549",
                f"the engine gave no rows of {job.site}[{layer}] for a text",
                notes=(f"wanted: {span.start}..{span.stop - 1}, of {len(text.ids)} tokens",),
            )
        chosen = [have.index(place) for place in span]
        rows.append(part.rows[chosen].double().mean(0).float().numpy())
    return np.stack(rows)


def _check_finite(rows: npt.NDArray[np.float32], job: Job) -> None:
    rough = ~np.isfinite(rows).all(axis=-1)  # [2, N, L]
    if rough.any():
        side, pair, layer = (int(one[0]) for one in np.nonzero(rough))
        name = ("positive", "negative")[side]
        raise IntervError(
            "E286",
            f"the {name} of {job.pairs[pair].where} is NaN or infinite "
            f"at {job.site}[{job.layers[layer]}]",
            notes=(f"so are {int(rough.any(axis=-1).sum()) - 1} other texts",),
            helps=("try --dtype float32",),
        )


def main() -> int:
    """Run the job; an error of the user's goes to the result, not to a traceback."""
    job = load_job(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with Path(sys.argv[3]).open("a", encoding="utf-8", buffering=1) as steps:
        try:
            found = run(job, lambda line: print(line, file=steps))
        except IntervError as error:
            found = dump_error(error)
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
