"""What interv carries in a vLLM configuration, for every process of the engine."""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interv.errors import IntervError
from interv.runtime import compat

if TYPE_CHECKING:
    from interv.codegen.bundle import Bundle
    from interv.model import ModelFacts
    from interv.passes.graph.directions import Vector

# The key of `additional_config` under which files and options travel until they are compiled.
KEY = "interv"
DEFAULT_SLOTS = 256
SEATS = 64  # places where one request's own rows are counted, where no more run at once
# Raised where the same structure gives another graph, so that saved ones are not met again.
GRAPHS = 4
_OPTIONS = ("files", "slots", "inline", "absorb_norm", "counters")


@dataclass(frozen=True, slots=True, eq=False)
class InterventionConfig:
    """A compiled document in `VllmConfig.additional_config`, for every process of the engine.

    `counters` is where the counts of edited rows are shared, without the number of the
    data-parallel rank; `extra` is what the user had put into `additional_config` otherwise.
    """

    bundle: Bundle
    slots: int = DEFAULT_SLOTS
    counters: str = ""
    # What programs that requests bring along are compiled with; None where there are none.
    model: ModelFacts | None = None
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    absorb_norm: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    seats: int = SEATS  # how many requests can have reports of their own at once
    documents: tuple[str, ...] = ()  # the names of their files, without folders

    @property
    def engine(self) -> str:
        """Return the engine's own name, which its processes share and no other engine has."""
        return Path(self.counters).name.removesuffix(".counts")

    def compute_hash(self) -> str:
        """Return the key of compiled graphs: their structure, and nothing that lives in buffers."""
        parts = [GRAPHS, self.bundle.structure, self.absorb_norm, dict(self.extra)]
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def engine_args(
    *files: str | Path,
    slots: int = DEFAULT_SLOTS,
    inline: bool = False,
    absorb_norm: bool = False,
) -> dict[str, Any]:
    """Return the keyword arguments that make `vllm.LLM` run under these documents.

    `slots` is how many different configurations may run at once, `inline` whether requests may
    bring programs of their own, `absorb_norm` whether an update and the fused add-RMSNorm behind it
    become one launch: an edit adds none then, and unedited answers may differ in their last bits.

    >>> llm = LLM(model, **engine_args("calm.interv"))          # doctest: +SKIP

    Raises IntervError for a file that is missing or wrong, and E501 for a vLLM whose engines could
    not be asked; what depends on the model (layers, widths) is checked when the engine is made,
    before the weights are loaded.
    """
    from interv.load import load_documents

    compat.check_arguments()
    load_documents(files)
    paths = [str(Path(file).resolve()) for file in files]
    options = {"files": paths, "slots": slots, "inline": inline, "absorb_norm": absorb_norm}
    return {"additional_config": {KEY: options}}


def options_of(additional: Any) -> Mapping[str, Any] | None:
    """Return interv's own part of `additional_config`, or None where it has none.

    Raises IntervError E502 for a part of the wrong shape.
    """
    if not isinstance(additional, Mapping) or KEY not in additional:
        return None
    options: Mapping[str, Any] = additional[KEY]
    if not _is_understood(options):
        raise IntervError(
            "E502",
            f"additional_config['{KEY}'] is not understood",
            notes=["its keys are: files, slots, inline, absorb_norm"],
            helps=[f"use {{'{KEY}': {{'files': ['calm.interv']}}}}, or --intervention FILE"],
        )
    slots = options.get("slots", DEFAULT_SLOTS)
    if not isinstance(slots, int) or isinstance(slots, bool) or slots < 1:
        raise IntervError("E502", f"the number of slots must be at least 1, not {slots!r}")
    return options


def _is_understood(options: Any) -> bool:
    if not isinstance(options, Mapping) or set(options) - set(_OPTIONS):
        return False
    # One path as a text would be taken for a list of letters.
    files = options.get("files")
    flags = all(isinstance(options.get(name, False), bool) for name in ("inline", "absorb_norm"))
    return flags and bool(files) and isinstance(files, list | tuple)


def counters_path() -> str:
    """Return a name for the counters of a new engine, which no other engine has."""
    return str(Path(tempfile.gettempdir()) / f"interv-{uuid.uuid4().hex}.counts")
