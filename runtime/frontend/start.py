"""What the frontend does once at the start: documents are compiled into vLLM's configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interv.errors import IntervError, raise_all
from interv.runtime import compat
from interv.runtime.config import DEFAULT_SLOTS, SEATS, InterventionConfig, counters_path
from interv.runtime.kv.frontend.refuse import refuse_config

if TYPE_CHECKING:
    from interv.codegen.bundle import Bundle
    from interv.compile import Compilation
    from interv.document.document import Document
    from interv.passes.graph.directions import Vector

MOST_SEAT_BYTES = 64 << 20  # what the counts of more requests than SEATS may take


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
        _bound(config, bundle)
    carried = InterventionConfig(
        bundle,
        int(options.get("slots", DEFAULT_SLOTS)),
        options.get("counters") or counters_path(),
        compiled.model if bundle.inline else None,
        _by_name(compiled) if bundle.inline else {},
        bool(options.get("absorb_norm", False)),
        dict(config.additional_config),
        seats_for(bundle, int(config.scheduler_config.max_num_seqs)),
        tuple(Path(file).name for file in options.get("files", ())),
    )
    config.additional_config = carried
    if bundle.spliced and not compat.is_compiled(config):
        compat.trace_without_compiling(config)


def seats_for(bundle: Bundle, requests: int) -> int:
    """Return R: a seat for each of the `requests` that may run at once, within MOST_SEAT_BYTES."""
    each = 8 * max(1, len(bundle.sites) * len(bundle.counted))
    return max(SEATS, min(requests, MOST_SEAT_BYTES // each))


def _bound(config: compat.VllmConfig, bundle: Bundle) -> None:
    """Raise IntervError E105 for programs that add more than the engine's dtype can hold."""
    from interv.runtime.frontend.overflow import Bounds

    bounds = Bounds(bundle, compat.dtype(config))
    raise_all([one for one in map(bounds.program, bundle.programs) if one is not None])


def _by_name(compiled: Compilation) -> dict[str, Vector]:
    """Return the vectors that a name stands for in all documents alike."""
    names = [one.vector.name for one in compiled.vectors]
    return {
        one.vector.name: one.vector for one in compiled.vectors if names.count(one.vector.name) == 1
    }


def _no_program() -> IntervError:
    return IntervError(
        "E504",
        "the documents have no program and no KV policy, so nothing could be done",
        helps=["add one: program calm { … }"],
    )


def _refuse(config: compat.VllmConfig, bundle: Bundle) -> None:
    parallel = config.parallel_config
    refused = {
        "sequence parallelism": compat.is_sequence_parallel(config),
        "dual-batch overlap": parallel.use_ubatching,
        # torch alone traces a graph for each size, or on a CPU none at all.
        "compilation mode 1 (STOCK_TORCH_COMPILE)": compat.has_stock_compiler(config),
        # Its later blocks see other tokens than its first ones.
        "fast prefill of shared caches": config.cache_config.kv_sharing_fast_prefill,
        # A rank of it has some of a request's tokens only, and not in the order of their positions.
        "prefill context parallelism": parallel.prefill_context_parallel_size > 1,
        "encoder-decoder models": config.model_config.is_encoder_decoder,
        # It spreads a step's drafts over requests on the device, where the host cannot follow.
        "adaptive verification of drafts": compat.adapts_drafts(config),
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
