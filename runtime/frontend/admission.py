"""Admission: what a request asks for becomes a choice, or is refused before it is queued."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np

from interv.codegen.bundle import INLINE, Bundle
from interv.codegen.slot import multiplied
from interv.dsl.expression import parse_expression
from interv.errors import IntervError, raise_all
from interv.request.inline import compile_inline, inline_text, is_inline
from interv.request.joint_programs import compile_joint
from interv.runtime import compat
from interv.runtime.captures.labels import labelled
from interv.runtime.choice import ASKED, REPORT, TAG, Choice
from interv.runtime.config import InterventionConfig
from interv.runtime.frontend.inseparable import inseparable, unmappable
from interv.runtime.frontend.overflow import Bounds
from interv.runtime.kv.asked import asked_kv
from interv.runtime.slot_contents import Composer

# How many resolved expressions and inline programs are remembered; a program may take 300 kB.
_EXPRESSIONS, _PROGRAMS = 4096, 128


class _Remembered:
    """The choices of the last requests; the oldest half goes when there are more than `size`.

    Threads may ask side by side: only what is known is locked, not the resolving.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: dict[str, Choice] = {}
        self._lock = Lock()

    def of(self, asked: str, resolve: Callable[[str], Choice]) -> Choice:
        with self._lock:
            known = self._known.get(asked)
        if known is None:
            known = resolve(asked)
            with self._lock:
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
        self._bounds = Bounds(bundle, compat.dtype(config))
        self._seed = compat.seed(config)
        self._expressions = _Remembered(_EXPRESSIONS)
        self._programs = _Remembered(_PROGRAMS)
        # One at a time: compiling is Python, and takes turns with the loop that serves the others.
        self._compiler = ThreadPoolExecutor(1, "interv-inline")

    def takes_long(self, asked: object) -> bool:
        """Say whether resolving this is more than reading it: it is compiled, or solved jointly."""
        return is_inline(asked) or (self._bundle.conflict == "joint" and "+" in str(asked))

    def compiling(self, asked: object) -> Future[Choice]:
        """Begin to resolve a request's own program in a thread; `resolve` finds it then.

        Its result raises what `resolve` would.
        """
        return self._compiler.submit(self._choice, asked)

    def resolve(
        self, extra: Mapping[str, Any], request: str = "", resumable: bool = False
    ) -> Choice:
        """Return what the client's `request` gets that says `extra` in its `extra_args`.

        Raises IntervError: E1xx and E205 to E212 for an expression that is wrong, E105, E405 to
        E407, E418, E419 and E883 to E887 for programs that cannot be had like this, E505, E506
        and E580 for values that are none, E581 to E583 for a KV cache that cannot be had like this.
        """
        asked, wanted = extra.get(ASKED), flag(extra.get(REPORT))
        choice = self._default if asked is None else self._choice(asked)
        kv = asked_kv(extra, self._bundle.kv, self._said_of_kv(choice), resumable)
        if wanted or kv is not None:
            choice = replace(choice, report=wanted, kv=kv)
        return labelled(choice, self._bundle, request, extra.get(TAG), self._seed)

    def _said_of_kv(self, choice: Choice) -> dict[str, bool]:
        if choice.inline is not None and not choice.terms:
            return {} if choice.inline.kv is None else {INLINE: choice.inline.kv}
        compressed = self._bundle.compressed
        return {name: compressed[name] for name, _ in choice.terms if name in compressed}

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
        if self._bundle.conflict == "joint" and len(choice.terms) > 1:
            joint = compile_joint(asked, choice.terms, self._bundle)
            return choice if joint is None else choice.together(joint)
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
        choice = Choice.brought(compile_inline(asked, self._bundle, vectors, model, encode))
        if (error := self._bounds.inline(choice)) is not None:
            raise error
        return choice

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
            f"program '{name}' caps, ablates, replaces or rotates:"
            " its multiplier cannot be negative",
            notes=[f"in the request: {asked}", "a strength is not below 0"],
            helps=["multiply programs that only steer, or leave it out"],
        )

    def _too_large(self, asked: str, name: str, multiplier: float) -> IntervError | None:
        with np.errstate(over="ignore"):
            made = multiplied(self._composer.part(name).columns, multiplier)
        if all(np.isfinite(made[amount]).all() for amount in ("alpha", "beta", "strength")):
            return self._bounds.program(name, multiplier)
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


def flag(value: object) -> bool:
    """Read a flag as JSON and command lines write it. Raises IntervError E506."""
    if value is None or value in (False, 0, "false", "0", ""):
        return False
    if value in (True, 1, "true", "1"):
        return True
    raise IntervError("E506", f"'{REPORT}' is true or false, not {value!r}")


def _programs(bundle: Bundle) -> str:
    return f"programs here: {', '.join(bundle.programs)}"
