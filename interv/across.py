"""What the documents of one engine say together: names, the default program, the policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from interv.document.document import Document
from interv.document.spec import Conflict, Program
from interv.errors import IntervError, Label
from interv.kv.settings import KvSettings, settings_of


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
    keep = "keep one of them: it applies to every request that says nothing"
    errors += [
        IntervError("E403", f"two documents name a default program: {where}", **marks, helps=[keep])
        for _, where, marks in _said_again(documents, "default", "named first", "named again")
    ]
    return next((one.spec.default for one in documents if one.spec.default is not None), None)


def conflict_policy(documents: Sequence[Document], errors: list[IntervError]) -> Conflict:
    """Return what happens where programs of one request meet. Collects E404."""
    policy = next((one.spec.conflict for one in documents if one.spec.conflict is not None), None)
    errors += [
        IntervError(
            "E404",
            f"two documents state different conflict policies: {where}",
            **marks,
            helps=["one policy applies wherever programs of one request meet"],
        )
        for other, where, marks in _said_again(documents, "conflict", "{} here", "{} here")
        if other.spec.conflict != policy
    ]
    return policy or "sequential"


def kv_policy(documents: Sequence[Document], errors: list[IntervError]) -> KvSettings | None:
    """Return the engine's KV policy, None where there is none. Collects E299 for a second one."""
    keep = "keep one of them: an engine has one cache"
    errors += [
        IntervError("E299", f"two documents declare a KV policy: {where}", **marks, helps=[keep])
        for _, where, marks in _said_again(documents, "kv", "declared first", "declared again")
    ]
    holder = next((one for one in documents if one.spec.kv is not None), None)
    # What is wrong with a policy by itself was found with its document.
    return None if errors or holder is None else settings_of(holder)


def _said_again(
    documents: Sequence[Document], part: str, before: str, again: str
) -> Iterator[tuple[Document, str, dict[str, Any]]]:
    """Yield each document that says a part after another, where both do, how an error shows it.

    `before` and `again` go under the two places; `{}` in them is what is said there.
    """
    holders = [one for one in documents if getattr(one.spec, part) is not None]
    for other in holders[1:]:
        first, span = holders[0], holders[0].span(part)
        more = [Label(span, before.format(getattr(first.spec, part)))] if span else []
        label = again.format(getattr(other.spec, part))
        where = f"{first.where(part)} and {other.where(part)}"
        yield other, where, {"span": other.span(part), "label": label, "more": more}


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
