"""What the documents of one engine say together: names, the default program, the policies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from interv.document import Document
from interv.errors import IntervError, Label
from interv.kv.settings import KvSettings, settings_of
from interv.spec import Conflict, Program


def named_twice(documents: Sequence[Document]) -> list[IntervError]:
    """Return E402 for every program that has the name of an earlier one."""
    seen: dict[str, tuple[Document, int]] = {}
    errors = []
    for document, index, program in programs_of(documents):
        if program.name in seen:
            first, at = seen[program.name]
            span = first.span("programs", at, "name")
            errors.append(
                IntervError(
                    "E402",
                    f"two programs are named '{program.name}':"
                    f" {first.where('programs', at)} and {document.where('programs', index)}",
                    document.span("programs", index, "name"),
                    "named again",
                    more=[Label(span, "named first")] if span else [],
                )
            )
        seen.setdefault(program.name, (document, index))
    return errors


def programs_of(documents: Sequence[Document]) -> Iterable[tuple[Document, int, Program]]:
    """Yield every program with its document and its place there."""
    for document in documents:
        for index, program in enumerate(document.spec.programs):
            yield document, index, program


def default_program(documents: Sequence[Document], errors: list[IntervError]) -> str | None:
    """Return the program of requests that say nothing. Collects E403 where several are named."""
    holders = [document for document in documents if document.spec.default is not None]
    for other in holders[1:]:
        first = holders[0].span("default")
        errors.append(
            IntervError(
                "E403",
                "two documents name a default program:"
                f" {holders[0].where('default')} and {other.where('default')}",
                other.span("default"),
                "named again",
                more=[Label(first, "named first")] if first else [],
                helps=["keep one of them: it applies to every request that says nothing"],
            )
        )
    return holders[0].spec.default if holders else None


def conflict_policy(documents: Sequence[Document], errors: list[IntervError]) -> Conflict:
    """Return what happens where programs of one request meet. Collects E404."""
    holders = [document for document in documents if document.spec.conflict is not None]
    for other in holders[1:]:
        if other.spec.conflict != holders[0].spec.conflict:
            first = holders[0].span("conflict")
            errors.append(
                IntervError(
                    "E404",
                    "two documents state different conflict policies:"
                    f" {holders[0].where('conflict')} and {other.where('conflict')}",
                    other.span("conflict"),
                    f"{other.spec.conflict} here",
                    more=[Label(first, f"{holders[0].spec.conflict} here")] if first else [],
                    helps=["one policy applies wherever programs of one request meet"],
                )
            )
    return (holders[0].spec.conflict if holders else None) or "sequential"


def kv_policy(documents: Sequence[Document], errors: list[IntervError]) -> KvSettings | None:
    """Return the engine's KV policy, None where there is none. Collects E299 for a second one."""
    holders = [document for document in documents if document.spec.kv is not None]
    for other in holders[1:]:
        first = holders[0].span("kv")
        errors.append(
            IntervError(
                "E299",
                "two documents declare a KV policy:"
                f" {holders[0].where('kv')} and {other.where('kv')}",
                other.span("kv"),
                "declared again",
                more=[Label(first, "declared first")] if first else [],
                helps=["keep one of them: an engine has one cache"],
            )
        )
    # What is wrong with a policy by itself was found with its document.
    return None if errors or not holders else settings_of(holders[0])


def compressed_programs(
    documents: Sequence[Document], errors: list[IntervError]
) -> dict[str, bool]:
    """Return what programs say of the caches of their requests, by name. Collects E295."""
    has_policy = any(document.spec.kv is not None for document in documents)
    said: dict[str, bool] = {}
    for document, index, program in programs_of(documents):
        if program.kv is None:
            continue
        if program.kv and not has_policy:
            errors.append(
                IntervError(
                    "E295",
                    f"program '{program.name}' says 'kv on', and no document declares a KV policy",
                    document.span("programs", index, "kv"),
                    "no policy",
                    helps=["declare one outside of programs: kv r1kv { default = off }"],
                )
            )
        said[program.name] = program.kv
    return said
