"""Which captures a request has, and the label of its rows."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import replace

from interv.codegen.bundle import Bundle, CaptureTable
from interv.errors import IntervError
from interv.runtime.choice import TAG, Choice, Label

MOST_TAG = 128


def labelled(choice: Choice, bundle: Bundle, request: str, tag: object, seed: int) -> Choice:
    """Return the choice with its captures, those of a share drawn by the seed and the request.

    Raises IntervError E560 for a tag that is none.
    """
    if tag is not None and not (isinstance(tag, str) and len(tag) <= MOST_TAG):
        said = f"'{TAG}' is a text of at most {MOST_TAG} characters, not {tag!r:.60}"
        raise IntervError("E560", said)
    programs = {name for name, _ in choice.terms}
    captures = 0
    for bit, one in enumerate(bundle.captures):
        if one.program in programs and _drawn(one, request, seed):
            captures |= 1 << bit
    if not captures:
        return choice
    return replace(choice, captures=captures, label=Label(request, tag or "", uuid.uuid4().hex))


def _drawn(capture: CaptureTable, request: str, seed: int) -> bool:
    """Say whether a request is in a capture's share: one seed draws the same ids every time."""
    if capture.sample is None:
        return True
    text = f"{seed}\n{capture.program}\n{capture.where}\n{request}"
    drawn = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return drawn < capture.sample * 2**64
