"""The process that holds one engine: forked by `nursery.py`, answers calls until its input ends.

Engine A: vLLM's first runner, Inductor's C++ (or the traced graph as it is, for quick starts).
Engine B: the second runner and the piecewise backend, with every Triton kernel under the
interpreter: the path that CUDA users get, without the GPU. "cuda" is that path with one.
"""

from __future__ import annotations

import itertools
import os
import pickle
import sys
import traceback
from types import SimpleNamespace
from typing import Any

from tests.engine.answer import Answer, Ask, Seen
from tests.engine.watch import Watch
from tests.kv.accounts import Accounts, Audit

_SECOND = {"VLLM_CPU_CI_ENV": "1", "TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}
FLAVOURS = {
    "inductor": {},
    "traced": {"VLLM_CPU_CI_ENV": "1"},
    "B": _SECOND,
    "triton": _SECOND,
    "cuda": {},
}


# More steps than any test needs: a request that is held for ever fails its test, and ends it.
_PATIENCE = 20_000
_ASLEEP = 3  # the step before which an engine is sent to sleep
# How many log-probabilities are asked for beside the chosen one.
_TOP = 20


def early(interpreted: bool) -> None:
    """Give the CPU platform a Triton driver, if kernels are interpreted; before vLLM's import."""
    if interpreted:
        from triton.backends import Backend, backends

        driver = SimpleNamespace(is_active=lambda: True)
        backends["cpu"] = Backend(compiler=None, driver=driver)  # type: ignore[arg-type]
        _mend_interpreter()


def prepare(flavour: str, options: dict[str, Any]) -> None:
    """Give the CPU platform what else it takes away: CUDA's backend, asynchrony."""
    from vllm.config import CompilationMode
    from vllm.platforms.cpu import CpuPlatform

    original = CpuPlatform.check_and_update_config.__func__

    def check_and_update_config(cls: Any, config: Any) -> None:
        original(cls, config)
        if options.get("async_scheduling"):
            config.scheduler_config.async_scheduling = True
        if flavour in ("B", "triton"):
            config.compilation_config.mode = CompilationMode.VLLM_COMPILE
            config.compilation_config.backend = "eager"
            config.compilation_config.compile_sizes = []
            # A graph has vLLM's own norm ops, as on CUDA.
            config.compilation_config.ir_enable_torch_wrap = True

    CpuPlatform.check_and_update_config = classmethod(check_and_update_config)
    if flavour in ("B", "triton"):
        _mend_sampler()
    if flavour == "triton":
        _attend_by_triton(CpuPlatform)


def _attend_by_triton(platform: Any) -> None:
    """Have the CPU platform choose the Triton backend, which it never would."""
    import torch
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    def get_attn_backend_cls(cls: Any, *args: Any, **kwargs: Any) -> str:
        return AttentionBackendEnum.TRITON_ATTN.get_path()

    platform.get_attn_backend_cls = classmethod(get_attn_backend_cls)
    # Its kernel that writes the cache asks which GPU it is on, for the size of a tile.
    torch.cuda.get_device_capability = lambda *_: (9, 0)


def _mend_interpreter() -> None:
    """Let masks be booleans: the interpreter computes some of vLLM's n-gram masks as integers."""
    from triton.runtime.interpreter import InterpreterBuilder

    load = InterpreterBuilder.create_masked_load

    def create_masked_load(self: Any, ptrs: Any, mask: Any, *rest: Any) -> Any:
        mask.data = mask.data.astype(bool)
        return load(self, ptrs, mask, *rest)

    InterpreterBuilder.create_masked_load = create_masked_load


def _mend_sampler() -> None:
    """Give the sampler of vLLM up to 0.30 a logarithm that the interpreter knows."""
    from triton import language
    from vllm.v1.worker.gpu.sample import gumbel

    if hasattr(gumbel, "tldevice"):
        gumbel.tldevice = SimpleNamespace(log1p=lambda x: language.log(1.0 + x))


class Child:
    """The calls that a host may make."""

    def __init__(self, model: str, options: dict[str, Any]) -> None:
        from vllm import LLM

        self.llm = LLM(model, **options)
        self._watch = Watch(self._core().scheduler)
        self._count = 0
        self._last: list[Any] = []
        self._adapters: dict[str, int] = {}

    def generate(self, prompts: list[list[int]], tokens: int, program: str | None) -> list[Answer]:
        """Return greedy completions of `LLM.generate` with logprobs of prompt and answer."""
        from vllm import SamplingParams

        params = SamplingParams(
            max_tokens=tokens,
            temperature=0,
            logprobs=0,
            prompt_logprobs=0,
            ignore_eos=True,
            detokenize=False,
            extra_args=None if program is None else {"intervention": program},
        )
        done = self.llm.generate(
            [{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False
        )
        return [_answer(one, one.outputs[0]) for one in done]

    def ask(self, asks: list[Ask]) -> list[list[Answer]]:
        """Return the samples of each request; an aborted one has none."""
        return [_samples(one) for one in self._outputs(asks)]

    def _outputs(self, asks: list[Ask]) -> list[Any]:
        self._watch.reset()
        engine, last = self.llm.llm_engine, max(ask.arrives for ask in asks)
        names, done, step = {}, {}, 0
        while step <= last or engine.has_unfinished_requests():
            assert step < _PATIENCE, "a request waits for ever"
            for index, ask in enumerate(asks):
                if ask.arrives == step:
                    names[index] = self._add(ask)
                if ask.leaves == step:
                    engine.abort_request([names[index]])
            for output in engine.step():
                done[output.request_id] = output
            step += 1
        return [done.get(names[index]) for index in range(len(asks))]

    def capture(self, asks: list[Ask]) -> list[list[tuple[Answer, Any]]]:
        """Return the samples of each request with the rows that were captured of them."""
        return [
            list(zip(_samples(one), _records(one), strict=True)) if one is not None else []
            for one in self._outputs(asks)
        ]

    def capture_results(self, asks: list[Ask]) -> list[Any]:
        """Return what became of the rows of each request, nothing of one without a capture."""
        self._last = self._outputs(asks)
        return self.last_results()

    def last_results(self) -> list[Any]:
        """Return what has become by now of the rows of the requests last asked for."""
        import interv

        known = [(one.kv_transfer_params or {}).get("interv_captures") for one in self._last]
        pairs = zip(self._last, known, strict=True)
        return [interv.capture_results(one) if where else () for one, where in pairs]

    def same_id(self) -> None:
        """Call the next request as the last one is called."""
        self._count -= 1

    def mark_last(self, by: str = "id") -> list[Any]:
        """Mark the requests last asked for, and say how many records each had, or what is wrong."""
        import interv

        found: list[Any] = []
        for one in self._last:
            try:
                found.append(interv.mark(self.llm, one if by == "answer" else one.request_id))
            except interv.IntervError as error:
                found.append(str(error))
        return found

    def empty_cache(self) -> None:
        """Forget all cached prefixes."""
        assert self.llm.reset_prefix_cache(), "blocks are in use"

    def seen(self) -> Seen:
        """Return what the scheduler did during the last `ask`."""
        return self._watch.seen

    def account(self, limit: int) -> None:
        """Audit the scheduler's blocks from now on; requests are cut at `limit` tokens."""
        self._accounts = Accounts(self._core().scheduler, limit)

    def audited(self) -> Audit:
        """Return what the audit has found."""
        return self._accounts.found()

    def chunk(self, tokens: int) -> None:
        """Let no forward pass take more than so many tokens of one prompt; 0 for no limit."""
        self._core().scheduler.scheduler_config.long_prefill_token_threshold = tokens

    def refusal(self, program: object, embeds: Any = None) -> tuple[str, str]:
        """Return the class and the text of the error that a request for `program` raises."""
        from vllm import SamplingParams

        params = SamplingParams(extra_args={"intervention": program})
        prompt = {"prompt_token_ids": [1, 2]} if embeds is None else {"prompt_embeds": embeds}
        try:
            self.llm.generate([prompt], params, use_tqdm=False)
        except Exception as error:
            return type(error).__name__, str(error)
        raise AssertionError(f"{program!r} was accepted")

    def say(self, method: str, prompts: list[Any], sampling: dict[str, Any]) -> list[Any] | str:
        """Return the answers of a method of `LLM` as HTTP would write them, or what it raises."""
        from vllm import PoolingParams, SamplingParams
        from vllm.sampling_params import BeamSearchParams

        kinds = {"beam_search": BeamSearchParams, "embed": PoolingParams}
        params = kinds.get(method, SamplingParams)(**sampling)
        name = "pooling_params" if method == "embed" else "params"
        name = "sampling_params" if method in ("generate", "chat") else name
        try:
            done = getattr(self.llm, method)(prompts, use_tqdm=False, **{name: params})
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return [_written(one) for one in done]

    def edited(self) -> list[int]:
        """Return how many rows each site has edited so far."""
        return self._runner().interv.counters.rows().sum(axis=1).tolist()

    def facts(self) -> dict[str, Any]:
        """Return what tests ask about the engine itself."""
        from vllm.compilation.counter import compilation_counter

        config = self.llm.llm_engine.vllm_config
        return {
            "runner": type(self._runner()).__module__,
            "mode": int(config.compilation_config.mode),
            "additional": type(config.additional_config).__name__,
            "hash": config.compute_hash(),
            "compiled": compilation_counter.num_aot_compiles,
            "loaded": compilation_counter.num_aot_artifacts_loaded,
            "patched": hasattr(self._runner(), "interv"),
            "async": config.scheduler_config.async_scheduling,
            "scheduler": type(self._core().scheduler).__name__,
            "blocks": config.cache_config.num_gpu_blocks,
            "engine": getattr(config.additional_config, "engine", None),
        }

    def _add(self, ask: Ask) -> str:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        said = {} if ask.program is None else {"intervention": ask.program}
        if ask.report:
            said["intervention_report"] = True
        if ask.kv is not None:
            said["intervention_kv"] = ask.kv
        greedy = {"temperature": 0, "logprobs": _TOP, "prompt_logprobs": 0, "ignore_eos": True}
        params = SamplingParams(
            **greedy | ask.sampling,
            max_tokens=ask.tokens,
            detokenize=False,
            extra_args=said or None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._count += 1
        name = str(self._count)
        prompt: dict[str, Any] = {"prompt_token_ids": ask.prompt}
        if ask.embeds is not None:
            prompt = {"prompt_embeds": ask.embeds}
        salted = {} if ask.salt is None else {"cache_salt": ask.salt}
        lora = None if ask.lora is None else self._adapter(ask.lora)
        more = {"lora_request": lora, "priority": ask.priority}
        self.llm.llm_engine.add_request(name, prompt | salted, params, **more)
        return name

    def interrupted(self, asks: list[Ask], level: int) -> list[Answer]:
        """Send the engine to sleep in the middle of answers, wake it up, and return the answers."""
        engine, names, done = self.llm.llm_engine, [self._add(ask) for ask in asks], {}
        for step in itertools.count():
            if not engine.has_unfinished_requests():
                return [_samples(done[name])[0] for name in names]
            if step == _ASLEEP:
                self.llm.sleep(level, mode="keep")
                assert not engine.step()
                self.llm.wake_up()
            done |= {one.request_id: one for one in engine.step()}
        raise AssertionError

    def _adapter(self, folder: str) -> Any:
        from vllm.lora.request import LoRARequest

        number = self._adapters.setdefault(folder, len(self._adapters) + 1)
        return LoRARequest(folder, number, folder)

    def rpc(self, name: str, kwargs: dict[str, Any] | None = None) -> Any:
        """Call a method of every worker."""
        return self.llm.collective_rpc(name, kwargs=kwargs)

    def _core(self) -> Any:
        return self.llm.llm_engine.engine_core.engine_core

    def _runner(self) -> Any:
        return self._core().model_executor.driver_worker.worker.model_runner


def _samples(output: Any) -> list[Answer]:
    if output is None:
        return []
    told = (output.kv_transfer_params or {}).get("interv")
    each = told if isinstance(told, list) else [told] * len(output.outputs)
    return [_answer(output, one, rows) for one, rows in zip(output.outputs, each, strict=True)]


def _written(output: Any) -> Any:
    if not hasattr(output, "kv_transfer_params"):
        return list(output.outputs.embedding)
    choices = [{"text": one.text, "finish_reason": one.finish_reason} for one in output.outputs]
    return {"choices": choices, "kv_transfer_params": output.kv_transfer_params}


def _records(output: Any) -> list[Any]:
    """Return the captured rows of each sample, by place and by the capture's number."""
    import interv

    if "interv_captures" not in (output.kv_transfer_params or {}):
        return [{} for _ in output.outputs]
    found: list[dict[Any, Any]] = [{} for _ in output.outputs]
    count: list[int] = [0 for _ in output.outputs]
    for record in interv.captured(output):
        number, count[record.sample] = count[record.sample], count[record.sample] + 1
        for part in record.parts:
            key = (part.site, part.layer, part.after, number)
            fed = (output.prompt_token_ids + list(output.outputs[record.sample].token_ids))[:-1]
            assert part.token_id.tolist() == [fed[i] for i in part.position.tolist()]
            found[record.sample][key] = (part.position.numpy(), part.rows.numpy())
    return found


def _answer(output: Any, sample: Any, told: Any = None) -> Answer:
    import interv

    ids = list(sample.token_ids)
    chosen = [step[token].logprob for token, step in zip(ids, sample.logprobs, strict=True)]
    # Nothing is known of the first token; of none where a request does not ask for it.
    known = output.prompt_logprobs or []
    given = zip((output.prompt_token_ids or [])[1:], known[1:], strict=len(known) > 1)
    prompt = [step[token].logprob for token, step in given]
    ranked = [
        sorted((one.logprob for one in step.values()), reverse=True) for step in sample.logprobs
    ]
    top = [value for step in ranked for value in step[:_TOP]]
    failed = interv.failure(output)
    cached = output.num_cached_tokens
    return Answer(ids, chosen, prompt, told, cached, top, failed, sample.finish_reason)


def serve(descriptor: int) -> None:
    """Serve pickled calls from standard input; replies go to the descriptor given."""
    flavour, model, options, env = pickle.load(sys.stdin.buffer)
    os.environ.update(env)
    replies = open(descriptor, "wb", buffering=0)  # noqa: SIM115
    child: Any = None
    while True:
        try:
            if child is None:
                prepare(flavour, options)
                child, reply = Child(model, options), None
            else:
                name, args = pickle.load(sys.stdin.buffer)
                reply = getattr(child, name)(*args)
            pickle.dump(("ok", reply), replies)
        except EOFError:
            return
        except BaseException as error:
            text = "".join(traceback.format_exception(error))
            pickle.dump(("error", text), replies)
            return
