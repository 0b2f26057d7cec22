"""The options of `kv POLICY { … }`: their names, kinds and ranges, without loading torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

from interv.document.document import Document
from interv.document.spec import Scalar
from interv.errors import IntervError, Span, raise_all, suggest

GROUP = "interv.kv"
BUILT_IN = ("r1kv", "snapkv", "streaming")
SCOPES = ("per_head", "per_layer")
# Below this a policy drops tokens before later ones could have asked for them; measured by others
# on GSM8K at budget 128: buffer 256 keeps 90.5 % right, buffer 16 keeps 65.5 %.
ADVISED_BUFFER = 128


@dataclass(frozen=True, slots=True)
class Number:
    """A numeric option: its default and its range, both ends included."""

    default: float
    low: float
    high: float = math.inf
    whole: bool = True
    odd: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """An option that is one of some words, the first one where it is not given."""

    words: tuple[str, ...]


# Every policy has these; `budget` and `buffer` say when the machinery compacts, and to what.
COMMON: Mapping[str, Number | Words] = {
    "budget": Number(512, 1),
    "buffer": Number(128, 1),
    "window": Number(8, 1),
    "scope": Words(SCOPES),
    "prefill": Words(("off", "on")),
    "default": Words(("on", "off")),
}
OWN: Mapping[str, Mapping[str, Number | Words]] = {
    "r1kv": {
        "lambda": Number(0.1, 0, 1, whole=False),
        "kernel": Number(7, 1, odd=True),
        "threshold": Number(0.5, -1, 1, whole=False),
    },
    "snapkv": {"kernel": Number(7, 1, odd=True)},
    "streaming": {"sinks": Number(4, 0)},
}


@dataclass(frozen=True, slots=True)
class KvSettings:
    """A checked `kv` declaration. Sizes are tokens of one request.

    `own` are the options of the policy itself, such as `lambda` of `r1kv`; of a policy that
    another package brings, they are what the document says, for that policy to check.
    """

    policy: str = "r1kv"
    budget: int = 512
    buffer: int = 128
    window: int = 8
    scope: str = "per_head"
    prefill: bool = False  # whether a prompt is compressed while it is read
    default: bool = True  # whether requests that say nothing are compressed
    own: tuple[tuple[str, Scalar], ...] = ()

    def option(self, name: str) -> Scalar:
        """Return an option of the policy itself; KeyError where it has none of that name."""
        return dict(self.own)[name]

    @property
    def limit(self) -> int:
        """Return how many tokens of a request the cache holds when it is compacted."""
        return self.budget + self.buffer

    def blocks(self, block_size: int) -> int:
        """Return the most blocks that a decoding request holds."""
        return -(-self.limit // block_size)


def settings_of(document: Document) -> KvSettings | None:
    """Return the checked policy of a document, None where it has none.

    Raises E296 for a policy that does not exist, E297 for an option that is unknown or of another
    kind, E298 for a size that is out of range; all of them together.
    """
    declared = document.spec.kv
    if declared is None:
        return None
    if declared.policy not in known_policies():
        raise _no_policy(declared.policy, document.span("kv", "policy"))
    known = {**COMMON, **OWN.get(declared.policy, {})}
    given: dict[str, Scalar] = {}
    errors: list[IntervError] = []
    for i, (name, value) in enumerate(declared.options):
        span = document.span("kv", "options", i)
        given[name] = value = _word(value, known.get(name))
        if name in known:
            errors += _faults(name, value, known[name], span)
        elif declared.policy in OWN:
            errors.append(_no_option(declared.policy, name, known, span))
    raise_all(errors)
    made = _settings(declared.policy, given, known)
    raise_all(list(_sizes(made, document)))
    return made


def known_policies() -> tuple[str, ...]:
    """Return the names of the policies here, those that other packages bring included."""
    brought = {entry.name for entry in metadata.entry_points(group=GROUP)}
    return (*BUILT_IN, *sorted(brought - set(BUILT_IN)))


def advice(settings: KvSettings) -> tuple[str, ...]:
    """Return what a user should know of settings that are allowed, and seldom wise."""
    if settings.buffer >= ADVISED_BUFFER:
        return ()
    return (
        f"kv {settings.policy}: buffer = {settings.buffer} is small, answers suffer below"
        f" {ADVISED_BUFFER}: tokens are dropped before later ones could have asked for them",
    )


def _settings(
    policy: str, given: Mapping[str, Scalar], known: Mapping[str, Number | Words]
) -> KvSettings:
    values = {name: given.get(name, _default(known[name])) for name in known}
    own = {name: value for name, value in values.items() if name not in COMMON}
    own |= {name: value for name, value in given.items() if name not in known}
    return KvSettings(
        policy,
        budget=int(values["budget"]),
        buffer=int(values["buffer"]),
        window=int(values["window"]),
        scope=str(values["scope"]),
        prefill=values["prefill"] == "on",
        default=values["default"] == "on",
        own=tuple(own.items()),
    )


def _default(option: Number | Words) -> Scalar:
    if isinstance(option, Words):
        return option.words[0]
    return int(option.default) if option.whole else option.default


def _word(value: Scalar, option: Number | Words | None) -> Scalar:
    """Return the word that YAML reads as a truth value."""
    is_switch = isinstance(option, Words) and {"on", "off"} == {*option.words}
    if not is_switch or not isinstance(value, bool):
        return value
    return "on" if value else "off"


def _faults(
    name: str, value: Scalar, option: Number | Words, span: Span | None
) -> Iterator[IntervError]:
    if isinstance(option, Words):
        if value not in option.words:
            yield IntervError(
                "E297",
                f"'{name}' is one of {', '.join(option.words)}, not '{value}'",
                span,
                helps=suggest(str(value), option.words),
            )
        return
    if isinstance(value, bool | str) or (option.whole and value != int(value)):
        kind = "a whole number" if option.whole else "a number"
        yield IntervError("E297", f"'{name}' is {kind}, not '{value}'", span)
    elif not option.low <= value <= option.high:
        upto = "" if math.isinf(option.high) else f" and at most {option.high:g}"
        yield IntervError("E298", f"'{name}' is at least {option.low:g}{upto}, not {value:g}", span)
    elif option.odd and value % 2 == 0:
        yield IntervError(
            "E298",
            f"'{name}' is odd, so that a window has a middle, not {value:g}",
            span,
        )


def _sizes(made: KvSettings, document: Document) -> Iterator[IntervError]:
    """Check the options of a policy against one another."""
    sinks = int(made.option("sinks")) if made.policy == "streaming" else 0
    if made.budget <= made.window + sinks:
        held = f"window = {made.window}" + (f" and sinks = {sinks}" if sinks else "")
        yield IntervError(
            "E298",
            f"'budget' must be larger than {made.window + sinks}, not {made.budget}",
            _span(document, "budget", "window", "sinks"),
            notes=[f"every compaction keeps {held}, and the best of the other tokens"],
        )


def _span(document: Document, *names: str) -> Span | None:
    """Return where the first of some options is given, else where the policy is."""
    assert document.spec.kv is not None
    given = [name for name, _ in document.spec.kv.options]
    at = next((given.index(name) for name in names if name in given), None)
    return document.span("kv") if at is None else document.span("kv", "options", at)


def _no_policy(name: str, span: Span | None) -> IntervError:
    known = known_policies()
    return IntervError(
        "E296",
        f"'{name}' is not a KV policy",
        span,
        "not known here",
        notes=[f"policies here: {', '.join(known)}"],
        helps=suggest(name, known),
    )


def _no_option(
    policy: str, name: str, known: Mapping[str, Number | Words], span: Span | None
) -> IntervError:
    return IntervError(
        "E297",
        f"kv {policy} has no option '{name}'",
        span,
        notes=[f"options: {', '.join(known)}"],
        helps=suggest(name, known),
    )
