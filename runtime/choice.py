"""What a request resolves to: programs with multipliers, and what it asked for beside them.

A choice is made at admission, travels in the request's `extra_args` as plain data, and is read
again by the scheduler and the worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from interv.codegen.bundle import Bundle
from interv.errors import IntervError
from interv.request.inline import Inline

# What users write in `extra_args`, and where the resolved choice travels beside it.
ASKED, REPORT, TAG = "intervention", "intervention_report", "intervention_tag"
RESOLVED = "_interv"
# Where the scheduler keeps a request's choice on it, once it has looked.
KNOWN = "_interv_choice"


@dataclass(frozen=True, slots=True)
class Label:
    """How a request that is captured is known: the client's id and tag, and a name of our own."""

    request: str
    tag: str
    handle: str  # no other request of any engine has it


@dataclass(frozen=True, slots=True)
class Choice:
    """One resolved request; `key` is equal for requests that can share a slot, "" for no edit."""

    key: str = ""
    terms: tuple[tuple[str, float], ...] = ()
    report: bool = False
    inline: Inline | None = None  # instead of terms: a program that the request brought along
    # What is captured of the request, a bit for each of the bundle's captures, and what its rows
    # and their result are called.
    captures: int = 0
    label: Label | None = None
    # Whether its KV cache is compressed; None leaves it to the policy. It travels as the client
    # could have said it.
    kv: bool | None = None
    # Where the request's own rows are counted, and a number that no other request in that seat
    # has; both are given by the scheduler.
    seat: int = -1
    ticket: int = 0

    @classmethod
    def of(cls, terms: tuple[tuple[str, float], ...], report: bool = False) -> Choice:
        """Return the choice of some programs; a multiplier of 0 leaves its program out."""
        kept = tuple((name, float(m)) for name, m in terms if m != 0)
        return cls(" + ".join(f"{name}*{m!r}" for name, m in kept), kept, report)

    @classmethod
    def default_of(cls, bundle: Bundle) -> Choice:
        """Return what a request gets that says nothing."""
        return cls() if bundle.default is None else cls.of(((bundle.default, 1.0),))

    def plain(self) -> dict[str, Any]:
        """Return the choice as it travels."""
        terms = [list(term) for term in self.terms]
        inline = None if self.inline is None else self.inline.plain()
        plain = {"key": self.key, "terms": terms, "report": self.report, "inline": inline}
        if self.label is not None:
            label = [self.label.request, self.label.tag, self.label.handle]
            plain |= {"captures": self.captures, "label": label}
        return plain

    @classmethod
    def brought(cls, inline: Inline) -> Choice:
        """Return the choice of an inline program; one without an edit needs no slot."""
        return cls(f"inline {inline.digest}" if inline.columns else "", inline=inline)

    def together(self, inline: Inline) -> Choice:
        """Return the choice of these programs, put together as one."""
        return replace(self, key=f"joint {inline.digest}", inline=inline)


def choice_in(params: Any, default: Choice) -> Choice:
    """Read the choice from a request's sampling parameters; pooling requests get the default.

    Raises IntervError E522 for a request that names a program and was not admitted here.
    """
    extra: Mapping[str, Any] = getattr(params, "extra_args", None) or {}
    plain = extra.get(RESOLVED)
    if plain is None:
        if extra.get(ASKED) is not None:
            raise IntervError(
                "E522",
                f"a request for {extra[ASKED]!r} reached the engine without being admitted",
                notes=["its answer would not be what it asks for, so the step is stopped"],
            )
        return default
    terms = tuple((str(name), float(m)) for name, m in plain["terms"])
    seat, ticket = plain.get("seat", (-1, 0))
    inline = None if plain["inline"] is None else Inline.of(plain["inline"])
    label = Label(*plain["label"]) if "label" in plain else None
    return Choice(
        key=plain["key"],
        terms=terms,
        report=plain["report"],
        inline=inline,
        captures=plain.get("captures", 0),
        label=label,
        seat=seat,
        ticket=ticket,
    )


def choice_of(request: Any, default: Choice) -> Choice:
    """Read the choice of one of the scheduler's requests, once.

    What the scheduler adds later, the seat, is not in it.
    """
    known: Choice | None = getattr(request, KNOWN, None)
    if known is None:
        known = choice_in(request.sampling_params, default)
        setattr(request, KNOWN, known)
    return known
