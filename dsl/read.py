"""Text to `Document`: parse, lower, validate, check; every fault of the text in one error."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from interv.document.checks import find_faults
from interv.document.document import Document, SpecPath
from interv.document.spec import Spec
from interv.document.validation import faults, validate
from interv.dsl.diagnostics import explain
from interv.dsl.lower import Lowering
from interv.dsl.parser import UNLIMITED, Limits, parse
from interv.dsl.values import Values
from interv.errors import IntervError, Source, by_place, raise_all

# A legal value for each field that a text can get wrong, so that one fault hides no other.
NEUTRAL: Mapping[str, object] = {
    "conflict": "sequential",
    "strength": 1.0,
    "rank": 1,
    "sample": 1.0,
    "keep": "all",
}


def read_document(
    source: Source, root: Path, declared: Collection[str] = (), limits: Limits = UNLIMITED
) -> Document:
    """Read one document; paths in it are relative to `root`, vectors in `declared` are known.

    Raises E1xx and E2xx, all faults together in the order of the text, as far as `limits` go.
    """
    parsed = parse(source, limits=limits)
    errors = [explain(failure) for failure in parsed.failures]
    document, broken = None, set(parsed.broken)
    if parsed.tree is not None:
        lowering = Lowering(Values(source))
        data = lowering.document(parsed.tree)
        errors += lowering.errors
        broken |= lowering.renamed
        document = _validated(source, root, data, lowering, errors)
    if document is not None:
        errors += find_faults(document, broken, declared)
    raise_all(sorted(errors, key=by_place))
    assert document is not None
    return document


def read_spec(source: Source) -> Spec:
    """Read what a text says, without asking whether its names and ranges make sense.

    Raises E1xx, and the E2xx of values that a `Spec` cannot hold.
    """
    parsed = parse(source)
    raise_all([explain(failure) for failure in parsed.failures])
    assert parsed.tree is not None
    lowering = Lowering(Values(source))
    data = lowering.document(parsed.tree)
    raise_all(lowering.errors)
    return validate(Spec, data, lowering.spans.get)


def _validated(
    source: Source, root: Path, data: dict[str, Any], lowering: Lowering, errors: list[IntervError]
) -> Document | None:
    document = Document(Spec(), root, source.name, source, lowering.spans)
    try:
        spec = Spec.model_validate(data)
    except ValidationError as refused:
        found = list(faults(refused, data, lambda path: document.span(*path)))
        errors += [error for _, error in found]
        if not all(_neutralise(data, path) for path, _ in found):
            return None
        spec = Spec.model_validate(data)
    return Document(spec, root, source.name, source, lowering.spans)


def _neutralise(data: Any, path: SpecPath) -> bool:
    """Put a legal value at `path`; False where none is known."""
    *outer, last = path
    for part in outer:
        data = data[part]
    if last == "name" and "layers" in data:
        # Sites between which no order is broken.
        data["name"] = "pre_attn" if "gate" in path else "post_block"
        return True
    if last not in NEUTRAL:
        return False
    data[last] = NEUTRAL[str(last)]
    return True
