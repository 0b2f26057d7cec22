"""Arrays inside a request of EasySteer version 2: `data`, a payload of version 1.

    {"version": 1, "kind": "direction", "tensors": {"layer.12": {"shape": [H], "data": base64}}}

Numbers are little-endian float32. Kinds: `direction` (`layer.N`), `concept_pair` (`h1.layer.N`
becomes `h2.layer.N`), `linear` (`weight`, `bias`), `lowrank` (`projector1`, `projector2`) and
`reft` (`rotate_layer`, `learned_source_weight`, `learned_source_bias`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from interv.errors import IntervError
from interv.importers.arrays import Array, tensor
from interv.importers.draft import Draft, unfit
from interv.importers.easysteer import Bank, Held, plain_tensors
from interv.importers.fields import LARGEST_LAYER, Fields
from interv.vectors.updates import Found, LinearParts, LowRankParts, make_adapter
from interv.vectors.words import EVERY

# The kind of payload that each algorithm takes.
KINDS = {
    "direct": "direction",
    "erase": "direction",
    "replace": "direction",
    "concept_replace": "concept_pair",
    "linear": "linear",
    "lm_steer": "lowrank",
    "loreft": "reft",
}
LAYER = re.compile(r"(h[12]\.)?layer\.(0|[1-9][0-9]{0,4})")
TENSORS: Mapping[str, tuple[str, ...]] = {
    "linear": ("weight", "bias"),
    "lowrank": ("projector1", "projector2"),
    "reft": ("rotate_layer", "learned_source_weight", "learned_source_bias"),
}


def read_payload(draft: Draft, fields: Fields, algorithm: str, name: str) -> Held:
    """Declare what a payload holds.

    Raises E211 for fields and kinds that are none, E263 for arrays that do not fit.
    """
    fields.only(("version", "kind", "tensors", "extra", "sha256"))
    if fields.need("version") != 1:
        raise fields.wrong("version", "1", fields.values["version"])
    kind = fields.text("kind")
    if kind != KINDS[algorithm]:
        raise IntervError(
            "E211",
            f"'{algorithm}' takes no payload of kind '{kind[:60]}'",
            notes=(f"in {fields.where}", f"it takes: {KINDS[algorithm]}"),
        )
    given = fields.part("tensors")
    arrays = {key: tensor(given.part(key)) for key in given.values}
    extra = fields.part("extra") if fields.has("extra") else Fields({}, fields.inside("extra"))
    extra.only(("layer",) if kind == "reft" else ())
    if kind in ("direction", "concept_pair"):
        return _banks(draft, arrays, kind, name, fields.where)
    return _adapter(draft, arrays, kind, name, extra)


def _banks(draft: Draft, arrays: Mapping[str, Array], kind: str, name: str, where: str) -> Held:
    found: dict[str, dict[int, Array]] = {}
    wanted = {"h1.", "h2."} if kind == "concept_pair" else {""}
    for key, values in arrays.items():
        match = LAYER.fullmatch(key)
        if match is None or (match[1] or "") not in wanted or values.ndim != 1:
            shape = list(values.shape)
            raise unfit(f"tensor '{key[:60]}' of shape {shape} in a payload '{kind}'", where)
        found.setdefault(match[1] or "", {})[int(match[2])] = values
    if set(found) != wanted or len({tuple(sorted(rows)) for rows in found.values()}) != 1:
        what = "h1 and h2 of the same layers" if kind == "concept_pair" else "layer.N"
        raise unfit(f"a payload '{kind}' of other tensors than {what}", where)
    banks = []
    for prefix, rows in sorted(found.items()):
        label = f"{name}_{prefix[:2]}" if prefix else name
        ordered = dict(sorted(rows.items()))
        banks.append(Bank(draft.bank(label, ordered, where), ordered))
    return banks[0] if len(banks) == 1 else (banks[0], banks[1])


def _adapter(
    draft: Draft, arrays: Mapping[str, Array], kind: str, name: str, extra: Fields
) -> Held:
    where, names = extra.where, TENSORS[kind]
    optional = {"bias", "learned_source_bias"}
    if not set(names) - optional <= set(arrays) <= set(names):
        raise unfit(f"a payload '{kind}' of tensors {', '.join(arrays)}", where, _wanted(kind))
    parts = _parts(arrays, kind, where)
    layer = EVERY
    if extra.has("layer"):
        (layer,) = Fields({"layer": [extra.values["layer"]]}, where).whole(
            "layer", 0, LARGEST_LAYER
        ) or (EVERY,)
    tensors = plain_tensors(parts, layer)
    declared = draft.update(name, tensors, where)
    path = draft.target.parent / draft.adapters[-1].path
    return make_adapter(declared, path, declared, Found("payload", {layer: parts}))


def _wanted(kind: str) -> str:
    return f"wanted: {', '.join(TENSORS[kind])}"


def _parts(arrays: Mapping[str, Array], kind: str, where: str) -> LowRankParts | LinearParts:
    shapes = {key: values.shape for key, values in arrays.items()}
    first = arrays[TENSORS[kind][0]]
    misfit = unfit(f"a payload '{kind}' of shapes {shapes}", where, _wanted(kind))
    if first.ndim != 2:
        raise misfit
    rows, columns = first.shape
    if kind == "linear":
        bias = arrays.get("bias")
        if rows != columns or (bias is not None and bias.shape != (rows,)):
            raise misfit
        return LinearParts(first, bias)
    if kind == "lowrank":
        if arrays["projector2"].shape != first.shape:
            raise misfit
        return LowRankParts(first.T.copy(), None, arrays["projector2"].T.copy())
    weight, bias = arrays["learned_source_weight"], arrays.get("learned_source_bias")
    if weight.shape != (columns, rows) or (bias is not None and bias.shape != (columns,)):
        raise misfit
    return LowRankParts(weight, bias, first.T.copy(), rotated=True)
