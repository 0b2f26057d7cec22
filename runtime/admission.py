"""Admission: what a request asks for becomes a choice, or is refused before it is queued."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from interv.codegen.bundle import Bundle
from interv.codegen.slot import multiplied
from interv.dsl.expression import parse_expression
from interv.errors import IntervError, each, raise_all
from interv.inline import compile_inline, inline_text, is_inline
from interv.runtime import compat
from interv.runtime.choice import ASKED, REPORT, RESOLVED, TAG, Choice
from interv.runtime.config import InterventionConfig
from interv.runtime.kv.asked import ASKED_KV, check_asked
from interv.runtime.sampled import labelled
from interv.runtime.terms import Composer
from interv.runtime.together import inseparable, unmappable

# How many resolved expressions and inline programs are remembered; a program may take 300 kB.
_EXPRESSIONS, _PROGRAMS = 4096, 64
# How many errors of one request its client reads.
_MOST_ERRORS = 8


class _Remembered:
    """The choices of the last requests; the oldest half goes when there are more than `size`."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: dict[str, Choice] = {}

    def of(self, asked: str, resolve: Callable[[str], Choice]) -> Choice:
        known = self._known.get(asked)
        if known is None:
            known = resolve(asked)
            if len(self._known) >= self._size:
                self._known = dict([*self._known.items()][self._size // 2 :])
            self._known[asked] = known
        return known

    def __len__(self) -> int:
        return len(self._known)


class Admission:
    """Resolves the requests of one engine."""

    def __init__(self, carried: InterventionConfig, config: compat.VllmConfig) -> None:
        self._carried, self._config = carried, config
        self._bundle = bundle = carried.bundle
        self._composer = Composer(bundle)
        self._default = Choice.default_of(bundle)
        self._seed = compat.seed(config)
        self._expressions = _Remembered(_EXPRESSIONS)
        self._programs = _Remembered(_PROGRAMS)

    def resolve(self, extra: Mapping[str, Any], request: str = "") -> Choice:
        """Return what the client's `request` gets that says `extra` in its `extra_args`.

        Raises IntervError: E1xx and E205 to E212 for an expression that is wrong, E105, E405 to
        E407 and E418 for programs that cannot be had like this, E505 and E506 for values that
        are none.
        """
        asked, wanted = extra.get(ASKED), _flag(extra.get(REPORT))
        choice = self._default if asked is None else self._choice(asked)
        choice = replace(choice, report=wanted) if wanted else choice
        return labelled(choice, self._bundle, request, extra.get(TAG), self._seed)

    def _choice(self, asked: object) -> Choice:
        if not isinstance(asked, str | Mapping):
            raise IntervError(
                "E505",
                f'\'{ASKED}\' is a text such as "calm*1.5 + formal" or "off",'
                f" not {type(asked).__name__}",
                notes=[_programs(self._bundle)],
            )
        text = inline_text(asked)
        if is_inline(asked):
            return self._programs.of(text, self._inline)
        return self._expressions.of(text, self._expression)

    def _expression(self, asked: str) -> Choice:
        expression = parse_expression(asked, self._bundle.programs)
        choice = Choice.of(tuple((t.program, t.multiplier) for t in expression.terms))
        self._check(asked, choice)
        return choice

    def _inline(self, asked: str) -> Choice:
        if self._carried.model is None:
            raise IntervError(
                "E509",
                "this engine takes no inline programs",
                notes=[_programs(self._bundle)],
                helps=["start it with --intervention-inline"],
            )
        encode = compat.encoder(self._config)
        vectors, model = self._carried.vectors, self._carried.model
        return Choice.brought(compile_inline(asked, self._bundle, vectors, model, encode))

    def _check(self, asked: str, choice: Choice) -> None:
        errors = [
            *(self._negative(asked, *term) for term in choice.terms),
            *(self._too_large(asked, *term) for term in choice.terms),
            *self._clashes(asked, choice),
            *unmappable(asked, [name for name, _ in choice.terms], self._bundle),
            *inseparable(asked, [name for name, _ in choice.terms], self._bundle),
            self._too_wide(asked, choice),
            self._too_many_gates(asked, choice),
        ]
        raise_all([error for error in errors if error is not None])

    def _negative(self, asked: str, name: str, multiplier: float) -> IntervError | None:
        if multiplier > 0 or not (self._composer.part(name).columns["strength"] > 0).any():
            return None
        return IntervError(
            "E405",
            f"program '{name}' caps, ablates or replaces, so its multiplier cannot be negative",
            notes=[f"in the request: {asked}", "a strength is between 0 and 1"],
            helps=["multiply programs that only steer, or leave it out"],
        )

    def _too_large(self, asked: str, name: str, multiplier: float) -> IntervError | None:
        with np.errstate(over="ignore"):
            made = multiplied(self._composer.part(name).columns, multiplier)
        if np.isfinite(made["alpha"]).all() and np.isfinite(made["beta"]).all():
            return None
        return IntervError(
            "E105",
            f"{multiplier:g} times program '{name}' is too large",
            notes=[f"in the request: {asked}", "a scale is at most 3.4e38 (float32)"],
        )

    def _clashes(self, asked: str, choice: Choice) -> list[IntervError]:
        names = [name for name, _ in choice.terms]
        found = []
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                clash = self._bundle.clashes.get((first, second))
                if clash is None:
                    continue
                found.append(
                    IntervError(
                        "E406",
                        f"programs '{first}' and '{second}' meet at {clash.site}:"
                        f" {clash.first} and {clash.second}",
                        notes=[
                            f"in the request: {asked}",
                            "the documents say 'conflict error' for programs of one request",
                        ],
                        helps=["ask for one of them, or have the document say another policy"],
                    )
                )
        return found

    def _too_wide(self, asked: str, choice: Choice) -> IntervError | None:
        counts = sum((self._composer.part(name).count for name, _ in choice.terms), start=0)
        for table, count in zip(self._bundle.sites, _listed(counts), strict=False):
            if count > self._bundle.width:
                return IntervError(
                    "E407",
                    f"these programs have {count} columns at {table.site},"
                    f" {self._bundle.width} are possible",
                    notes=[f"in the request: {asked}"],
                    helps=["ask for fewer programs at once"],
                )
        return None

    def _too_many_gates(self, asked: str, choice: Choice) -> IntervError | None:
        wanted = sum(self._composer.part(name).stores for name, _ in choice.terms)
        if wanted <= self._bundle.gates:
            return None
        return IntervError(
            "E407",
            f"these programs have {wanted} gates at earlier sites,"
            f" {self._bundle.gates} are possible",
            notes=[f"in the request: {asked}"],
            helps=["ask for fewer programs at once"],
        )


def _listed(counts: Any) -> list[int]:
    return [] if isinstance(counts, int) else counts.tolist()


def _flag(value: object) -> bool:
    """Read a flag as JSON and command lines write it."""
    if value is None or value in (False, 0, "false", "0", ""):
        return False
    if value in (True, 1, "true", "1"):
        return True
    raise IntervError("E506", f"'{REPORT}' is true or false, not {value!r}")


def _programs(bundle: Bundle) -> str:
    return f"programs here: {', '.join(bundle.programs)}"


def process_inputs(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Resolve a request before it is queued; wraps `InputProcessor.process_inputs`."""
    params = kwargs.get("params", args[2] if len(args) > 2 else None)
    name = kwargs.get("request_id", args[0] if args else "")
    extra = getattr(params, "extra_args", None) or {}
    choice = resolve_for(self, self.vllm_config, extra, str(name), bool(kwargs.get("resumable")))
    if choice is not None and choice.key and kwargs.get("resumable"):
        error = IntervError(
            "E508",
            "a prompt that is sent in pieces has no interventions",
            notes=["selectors count from the end of the prompt, which is not known yet"],
            helps=["send the whole prompt at once"],
        )
        raise compat.bad_request(str(error))
    if choice is not None and choice.captures and not hasattr(params, "extra_args"):
        raise compat.bad_request(str(_not_generating()))
    made = original(self, *args, **kwargs)
    if choice is not None and made.sampling_params is not None:
        extra = made.sampling_params.extra_args or {}
        made.sampling_params.extra_args = {**extra, RESOLVED: choice.plain()}
    return made


def resolve_for(
    owner: Any,
    config: compat.VllmConfig,
    extra: Mapping[str, Any],
    request: str = "",
    resumable: bool = False,
) -> Choice | None:
    """Return the choice of a request to an engine, None where the engine edits nothing.

    `owner` keeps what is remembered between requests. Raises what vLLM answers with HTTP 400.
    """
    try:
        carried = config.additional_config
        if isinstance(carried, InterventionConfig):
            if not hasattr(owner, "interv"):
                owner.interv = Admission(carried, config)
            check_asked(extra, carried.bundle.kv, resumable)
            choice: Choice = owner.interv.resolve(extra, request)
            return choice
        check_asked(extra, None)
        if extra.get(ASKED) is not None or _flag(extra.get(REPORT)):
            raise _not_armed(extra)
    except IntervError as error:
        raise compat.bad_request(_told(error)) from error
    return None


def _not_generating() -> IntervError:
    return IntervError(
        "E561",
        "a request that generates nothing is not captured",
        notes=["its program captures, and its answer would say nothing of it"],
        helps=["ask for 'off', or for a program that only edits"],
    )


def _told(error: IntervError) -> str:
    """Print what is wrong with a request; a small request makes no large answer."""
    found = each(error)
    more = len(found) - _MOST_ERRORS
    shown = [str(one) for one in found[:_MOST_ERRORS]]
    return "\n\n".join([*shown, f"and {more} more errors"] if more > 0 else shown)


def _not_armed(extra: Mapping[str, Any]) -> IntervError:
    return IntervError(
        "E504",
        "this engine has no interventions",
        notes=[f"the request asks for {extra.get(ASKED, REPORT)!r}"],
        helps=["start it with --intervention FILE"],
    )


async def check_model(original: Any, self: Any, request: Any) -> Any:
    """Refuse a request over HTTP before it is answered; wraps `BaseServing._check_model`.

    A stream's status is sent before its request is queued, so it is looked at here already.
    """
    extra = getattr(request, "vllm_xargs", None) or {}
    client = getattr(self, "engine_client", None)
    if client is not None and (ASKED in extra or REPORT in extra or ASKED_KV in extra):
        resolve_for(client.input_processor, client.vllm_config, extra)
        if getattr(request, "use_beam_search", False):
            raise compat.bad_request(str(_no_beams()))
    return await original(self, request)


def _no_beams() -> IntervError:
    return IntervError(
        "E507",
        "beam search does not carry a request's intervention",
        notes=["its beams would get the default program"],
        helps=["leave 'use_beam_search' or 'intervention' out of the request"],
    )
