"""Write a document in Python: the same document as the text, with the same errors.

doc = interv.new_document()
calm = doc.vector("calm", "vectors/calm.gguf")
program = doc.program("calm", conflict="sequential")
program.steer(calm, at=post_block[layers(10, 20)], scale=1.5, when=generated)
doc.default("calm")
doc.spec()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from interv.document.checks import check_document
from interv.document.document import Document
from interv.document.notation import (
    Select,
    after,
    all_of,
    any_of,
    before,
    between,
    everything,
    generated,
    layers,
    post_attn,
    post_block,
    pre_attn,
    prompt,
    token,
)
from interv.document.spec import (
    Ablate,
    AdapterDecl,
    Apply,
    Cap,
    Capture,
    Gate,
    KvPolicy,
    Program,
    Replace,
    Rotate,
    Scalar,
    SinkDecl,
    SiteRef,
    Spec,
    Statement,
    Steer,
    VectorDecl,
)
from interv.document.validation import Model, validate

__all__ = [
    "DocumentBuilder",
    "ProgramBuilder",
    "Select",
    "after",
    "all_of",
    "any_of",
    "before",
    "between",
    "everything",
    "gate",
    "generated",
    "layers",
    "new_document",
    "post_attn",
    "post_block",
    "pre_attn",
    "prompt",
    "token",
]

Decl = TypeVar("Decl", VectorDecl, AdapterDecl, SinkDecl)


def gate(
    vector: VectorDecl | str,
    at: SiteRef | None = None,
    *,
    absolute: bool = False,
    cosine: bool = False,
    sharpness: float = 1.0,
    threshold: float = 0.0,
    above: float | None = None,
    below: float | None = None,
) -> Gate:
    """Scale an edit by sigmoid(sharpness·(x - threshold)), x being `w·h` at `at`.

    With `cosine` x is `w·h / (‖w‖·‖h‖)`, with `absolute` its absolute value. `above` and `below`
    make a step of the curve: the edit acts where above < x < below, and nowhere else.
    """
    data = {"vector": _name(vector), "site": at, "sharpness": sharpness, "threshold": threshold}
    more = {"absolute": absolute, "cosine": cosine, "above": above, "below": below}
    return validate(Gate, data | more)


@dataclass(slots=True)
class ProgramBuilder:
    """A program that is being written; each method adds one statement."""

    name: str
    conflict: str
    kv: bool | None = None
    statements: list[Statement] = field(default_factory=list)

    def steer(
        self,
        vector: VectorDecl | str,
        *,
        at: SiteRef,
        scale: float = 1.0,
        by_norm: bool = False,
        keep_norm: bool = False,
        decay: float = 1.0,
        when: Select = everything,
        gate: Gate | None = None,
    ) -> None:
        """Add `scale·v` to the stream; with `keep_norm`, then scale it back to its norm.

        With `by_norm` it adds `scale·‖h‖` along `v`, a share of the stream's own length.
        """
        rest = {"scale": scale, "by_norm": by_norm, "keep_norm": keep_norm, "decay": decay}
        self._edit(Steer, at, when, gate, vector=_name(vector), **rest)

    def cap(
        self,
        vector: VectorDecl | str,
        *,
        at: SiteRef,
        low: float | None = None,
        high: float | None = None,
        strength: float = 1.0,
        decay: float = 1.0,
        when: Select = everything,
        gate: Gate | None = None,
    ) -> None:
        """Bring the component along `v` into `[low, high]`; None is an open end."""
        rest = {"low": low, "high": high, "strength": strength, "decay": decay}
        self._edit(Cap, at, when, gate, vector=_name(vector), **rest)

    def ablate(
        self,
        vector: VectorDecl | str,
        *,
        at: SiteRef,
        strength: float = 1.0,
        over: bool = False,
        keep_norm: bool = False,
        decay: float = 1.0,
        when: Select = everything,
        gate: Gate | None = None,
    ) -> None:
        """Remove the component along `v`, or the part `strength` of it.

        `over` lets that be more than all of it; with `keep_norm` the stream keeps its norm.
        """
        rest = {"over": over, "strength": strength, "keep_norm": keep_norm, "decay": decay}
        self._edit(Ablate, at, when, gate, vector=_name(vector), **rest)

    def replace(
        self,
        vector: VectorDecl | str,
        *,
        at: SiteRef,
        by: VectorDecl | str | None = None,
        scale: float = 1.0,
        strength: float = 1.0,
        decay: float = 1.0,
        when: Select = everything,
        gate: Gate | None = None,
    ) -> None:
        """Set the stream to `scale·v`; with `by`, turn only its part along `v` into that vector."""
        other = None if by is None else _name(by)
        rest = {"by": other, "scale": scale, "strength": strength, "decay": decay}
        self._edit(Replace, at, when, gate, vector=_name(vector), **rest)

    def rotate(
        self,
        vector: VectorDecl | str,
        *,
        at: SiteRef,
        towards: VectorDecl | str,
        to: float,
        adaptive: bool = False,
        strength: float = 1.0,
        decay: float = 1.0,
        when: Select = everything,
        gate: Gate | None = None,
    ) -> None:
        """Turn the stream, in the plane of `vector` and `towards`, to an angle in degrees.

        At 0 it points along `vector`, at 90 across it. With `adaptive` only where it holds some of
        `vector`.
        """
        rest = {"to": to, "adaptive": adaptive, "strength": strength, "decay": decay}
        names = {"vector": _name(vector), "towards": _name(towards)}
        self._edit(Rotate, at, when, gate, **names, **rest)

    def apply(
        self,
        adapter: AdapterDecl | str,
        *,
        at: SiteRef,
        scale: float = 1.0,
        decay: float = 1.0,
        when: Select = everything,
        gate: Gate | None = None,
    ) -> None:
        """Apply an adapter's own update, scaled."""
        self._edit(Apply, at, when, gate, adapter=_name(adapter), scale=scale, decay=decay)

    def capture(
        self,
        *,
        at: SiteRef,
        to: SinkDecl | str,
        tokens: Select = everything,
        after: bool = False,
        rank: int | None = None,
        sample: float | None = None,
        keep: str = "all",
    ) -> None:
        """Copy rows of the stream to a sink, before the edits of the site or `after` them."""
        rest = {"after": after, "rank": rank, "sample": sample, "keep": keep}
        self._add(Capture, at=at, to=_name(to), tokens=tokens.selector, **rest)

    def _edit(
        self, model: type[Model], at: SiteRef, when: Select, gate: Gate | None, **data: object
    ) -> None:
        self._add(model, at=at, when=when.selector, gate=gate, **data)

    def _add(self, model: type[Model], **data: object) -> None:
        statement: Any = validate(model, data)
        self.statements.append(statement)


@dataclass(slots=True)
class DocumentBuilder:
    """A document that is being written; `spec()` gives the finished value."""

    vectors: list[VectorDecl] = field(default_factory=list)
    adapters: list[AdapterDecl] = field(default_factory=list)
    programs: list[ProgramBuilder] = field(default_factory=list)
    sinks: list[SinkDecl] = field(default_factory=list)
    policy: KvPolicy | None = None
    conflict_policy: str | None = None
    default_program: str | None = None

    def vector(
        self,
        name: str,
        path: str,
        *,
        key: str | None = None,
        row: int | None = None,
        rows: str | None = None,
        unit: bool = False,
    ) -> VectorDecl:
        """Declare a vector file; `unit` normalises its directions on load.

        `key` and `row` pick a tensor and a row of it; `rows` is what a bank is numbered by,
        "blocks" or "hidden_states".
        """
        data = {"name": name, "path": path, "key": key, "row": row, "rows": rows, "unit": unit}
        return _keep(self.vectors, validate(VectorDecl, data))

    def adapter(self, name: str, path: str) -> AdapterDecl:
        """Declare the folder of an adapter."""
        return _keep(self.adapters, validate(AdapterDecl, {"name": name, "path": path}))

    def sink(self, name: str, kind: str, /, *args: Scalar, **options: Scalar) -> SinkDecl:
        """Declare where captured rows go."""
        data = {"name": name, "kind": kind, "args": args, "options": tuple(options.items())}
        return _keep(self.sinks, validate(SinkDecl, data))

    def kv(self, policy: str, /, **options: Scalar) -> None:
        """Set the KV cache policy."""
        self.policy = validate(KvPolicy, {"policy": policy, "options": tuple(options.items())})

    def program(
        self, name: str, *, conflict: str = "sequential", kv: bool | None = None
    ) -> ProgramBuilder:
        """Begin a program; `kv` says whether its requests' caches are compressed."""
        validate(Program, {"name": name, "conflict": conflict, "kv": kv})
        program = ProgramBuilder(name, conflict, kv)
        self.programs.append(program)
        return program

    def conflict(self, policy: str) -> None:
        """Say what happens where programs of one request meet. Raises E211."""
        validate(Spec, {"conflict": policy})
        self.conflict_policy = policy

    def default(self, program: ProgramBuilder | str) -> None:
        """Name the program of requests that say nothing."""
        self.default_program = program if isinstance(program, str) else program.name

    def spec(self) -> Spec:
        """Return the finished document as data. Raises E206 for a name that is given twice."""
        fields = ("name", "statements", "conflict", "kv")
        programs = [{name: getattr(one, name) for name in fields} for one in self.programs]
        data: Mapping[str, object] = {
            "vectors": self.vectors,
            "adapters": self.adapters,
            "programs": programs,
            "sinks": self.sinks,
            "kv": self.policy,
            "conflict": self.conflict_policy,
            "default": self.default_program,
        }
        return validate(Spec, data)

    def document(self, root: str | Path = ".") -> Document:
        """Return the finished document, its paths relative to `root`.

        Raises E2xx for every name that refers to nothing, empty range and empty selector.
        """
        document = Document(self.spec(), Path(root))
        check_document(document)
        return document


def new_document() -> DocumentBuilder:
    """Begin a document."""
    return DocumentBuilder()


def _keep(items: list[Decl], item: Decl) -> Decl:
    items.append(item)
    return item


def _name(declared: VectorDecl | AdapterDecl | SinkDecl | str) -> str:
    return declared if isinstance(declared, str) else declared.name
