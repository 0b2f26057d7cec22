"""What interv carries in a vLLM configuration, and how it gets there."""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interv.errors import IntervError, raise_all
from interv.runtime import compat
from interv.runtime.kv.refuse import refuse_config

if TYPE_CHECKING:
    from interv.codegen.bundle import Bundle
    from interv.compile import Compilation
    from interv.document import Document
    from interv.model import ModelFacts
    from interv.passes.constants import Vector

# The key of `additional_config` under which files and options travel until they are compiled.
KEY = "interv"
DEFAULT_SLOTS = 256
# Requests that may ask for a report at once, where nobody says how many; and the bytes that all
# their counts may take.
SEATS, MOST_BYTES = 64, 64 << 20
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
    seats: int = SEATS  # how many requests may ask for a report at once
    files: tuple[str, ...] = ()  # the names of the documents, for people

    @property
    def engine(self) -> str:
        """Return the engine's own name, which its processes share and no other engine has."""
        return Path(self.counters).name.removesuffix(".counts")

    def compute_hash(self) -> str:
        """Return the key of compiled graphs: their structure, and nothing that lives in buffers."""
        parts = [self.bundle.structure, self.absorb_norm, dict(self.extra)]
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

    Raises IntervError for a file that is missing or wrong; what depends on the model (layers,
    widths) is checked when the engine is made, before the weights are loaded.
    """
    from interv.load import load_documents

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


def compile_for(
    config: compat.VllmConfig, documents: Sequence[Document], options: Mapping[str, Any]
) -> Compilation:
    """Compile documents against the model of a vLLM configuration."""
    from interv.compile import compile_documents
    from interv.model import facts_from_config

    facts = facts_from_config(compat.text_config(config), config.model_config.model)
    return compile_documents(
        documents, facts, compat.encoder(config), bool(options.get("inline", False))
    )


def arm(config: compat.VllmConfig, compiled: Compilation, options: Mapping[str, Any]) -> None:
    """Put a bundle into a configuration and switch off what it cannot be combined with.

    A bundle that edits nothing is carried for its names only: the model runs as it always does.
    """
    bundle = compiled.bundle
    if not bundle.programs and bundle.kv is None:
        raise _no_program()
    if bundle.kv is not None:
        refuse_config(config, bundle.kv)
    if bundle.kv is None and not bundle.spliced:
        compat.log.warning("interv: no program edits or captures anything, so nothing is changed")
    if bundle.spliced:
        _refuse(config, bundle)
    carried = InterventionConfig(
        bundle,
        int(options.get("slots", DEFAULT_SLOTS)),
        options.get("counters") or counters_path(),
        compiled.model if bundle.inline else None,
        _by_name(compiled) if bundle.inline else {},
        bool(options.get("absorb_norm", False)),
        dict(config.additional_config),
        seats=seats_for(bundle, config.scheduler_config.max_num_seqs),
        files=tuple(Path(file).name for file in options["files"]),
    )
    config.additional_config = carried
    if bundle.spliced and not compat.is_compiled(config):
        compat.trace_without_compiling(config)


def seats_for(bundle: Bundle, requests: int) -> int:
    """Return how many requests may ask for a report at once: all that run, within MOST_BYTES."""
    each = 8 * max(1, len(bundle.sites) * len(bundle.counted))
    return max(1, min(requests, MOST_BYTES // each))


def _by_name(compiled: Compilation) -> dict[str, Vector]:
    """Return the vectors that a name stands for in all documents alike."""
    names = [one.vector.name for one in compiled.vectors]
    return {
        one.vector.name: one.vector for one in compiled.vectors if names.count(one.vector.name) == 1
    }


def counters_path() -> str:
    """Return a name for the counters of a new engine, which no other engine has."""
    return str(Path(tempfile.gettempdir()) / f"interv-{uuid.uuid4().hex}.counts")


def _no_program() -> IntervError:
    return IntervError(
        "E504",
        "the documents have no program and no KV policy, so nothing could be done",
        helps=["add one: program calm { … }"],
    )


def _refuse(config: compat.VllmConfig, bundle: Bundle) -> None:
    parallel, compilation = config.parallel_config, config.compilation_config
    refused = {
        "sequence parallelism": getattr(compilation.pass_config, "enable_sp", False),
        "dual-batch overlap": getattr(parallel, "enable_dbo", False),
        # torch alone traces a graph for each size, or on a CPU none at all.
        "compilation mode 1 (STOCK_TORCH_COMPILE)": compat.has_stock_compiler(config),
        # Its later blocks see other tokens than its first ones.
        "fast prefill of shared caches": config.cache_config.kv_sharing_fast_prefill,
        "encoder-decoder models": config.model_config.is_encoder_decoder,
        # A block that another engine has computed has no rows here.
        "captures beside a KV connector": bool(bundle.captures and config.kv_transfer_config),
        # A later stage of the pipeline does not have the weights that an earlier one computed.
        "pipeline parallelism and gates at another site": (
            parallel.pipeline_parallel_size > 1 and any(map(bundle.stores, bundle.programs))
        ),
    }
    raise_all(
        [
            IntervError("E503", f"interventions are not supported with {name} yet")
            for name, on in refused.items()
            if on
        ]
    )
