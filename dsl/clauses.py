"""The clauses of each statement, in the order in which they are printed."""

from __future__ import annotations

from collections.abc import Mapping

EDIT_TAIL = ("decay", "when", "gate")

CLAUSES: Mapping[str, tuple[str, ...]] = {
    "steer": ("at", "scale", "keep", *EDIT_TAIL),
    "cap": ("at", "in", "strength", *EDIT_TAIL),
    "ablate": ("at", "strength", "keep", *EDIT_TAIL),
    "replace": ("by", "at", "scale", "strength", *EDIT_TAIL),
    "rotate": ("towards", "at", "to", "adaptive", "strength", *EDIT_TAIL),
    "apply": ("at", "scale", *EDIT_TAIL),
    "capture": ("at", "tokens", "to", "after", "rank", "sample", "keep"),
    "gate": ("at", "absolute", "cosine", "sharpness", "threshold", "above", "below"),
}

REQUIRED: Mapping[str, tuple[str, ...]] = {
    "steer": ("at",),
    "cap": ("at", "in"),
    "ablate": ("at",),
    "replace": ("at",),
    "rotate": ("towards", "at", "to"),
    "apply": ("at",),
    "capture": ("at", "to"),
    "gate": (),
}

# How each clause is written, for help.
SHAPE: Mapping[str, str] = {
    "by": "by VECTOR",
    "towards": "towards VECTOR",
    "rotate to": "to DEGREES",
    "adaptive": "adaptive",
    "at": "at SITE[layers]",
    "scale": "scale NUMBER",
    "in": "in [low, high]",
    "strength": "strength NUMBER",
    "decay": "decay NUMBER",
    "when": "when SELECTOR",
    "gate": "gate VECTOR",
    "absolute": "absolute",
    "cosine": "cosine",
    "above": "above NUMBER",
    "below": "below NUMBER",
    "sharpness": "sharpness NUMBER",
    "threshold": "threshold NUMBER",
    "tokens": "tokens SELECTOR",
    "to": "to SINK",
    "after": "after",
    "rank": "rank NUMBER",
    "sample": "sample NUMBER",
    "keep": "keep NAME",
}

STATEMENTS = ("steer", "cap", "ablate", "replace", "rotate", "apply", "capture", "conflict", "kv")
DECLARATIONS = ("vector", "adapter", "program", "sink", "kv", "conflict", "default")
# What may follow the path of a vector, in the order in which it is printed.
VECTOR_OPTIONS = ("key", "row", "rows", "unit")
