"""What interv carries in a vLLM configuration, and how it gets there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interv.errors import IntervError, raise_all
from interv.runtime import compat

if TYPE_CHECKING:
    from interv.codegen.bundle import Bundle
    from interv.document import Document

# The key of `additional_config` under which files and options travel until they are compiled.
KEY = "interv"
DEFAULT_SLOTS = 256
_OPTIONS = ("files", "slots")


@dataclass(frozen=True, slots=True, eq=False)
class InterventionConfig:
    """A compiled document in `VllmConfig.additional_config`, for every process of the engine.

    `extra` is what the user had put there otherwise.
    """

    bundle: Bundle
    slots: int = DEFAULT_SLOTS
    extra: Mapping[str, Any] = field(default_factory=dict)

    def compute_hash(self) -> str:
        """Return the key of compiled graphs: their structure, and nothing that lives in buffers."""
        text = json.dumps([self.bundle.structure, dict(self.extra)], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def engine_args(*files: str | Path, slots: int = DEFAULT_SLOTS) -> dict[str, Any]:
    """Return the keyword arguments that make `vllm.LLM` run under these documents.

    >>> llm = LLM(model, **engine_args("calm.interv"))          # doctest: +SKIP

    Raises IntervError for a file that is missing or wrong; what depends on the model (layers,
    widths) is checked when the engine is made, before the weights are loaded.
    """
    from interv.load import load_documents

    load_documents(files)
    paths = [str(Path(file).resolve()) for file in files]
    return {"additional_config": {KEY: {"files": paths, "slots": slots}}}


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
            notes=[f"its keys are: {', '.join(_OPTIONS)}"],
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
    return bool(files) and isinstance(files, list | tuple)


def compile_for(config: compat.VllmConfig, documents: Sequence[Document]) -> Bundle:
    """Compile documents against the model of a vLLM configuration."""
    from interv.compile import compile_documents
    from interv.model import facts_from_config

    facts = facts_from_config(compat.text_config(config), config.model_config.model)
    return compile_documents(documents, facts).bundle


def arm(config: compat.VllmConfig, bundle: Bundle, options: Mapping[str, Any]) -> None:
    """Put a bundle into a configuration and switch off what it cannot be combined with.

    A bundle that edits nothing leaves the configuration as it was.
    """
    if bundle.default is None:
        raise _no_default(bundle)
    if not bundle.sites:
        compat.log.warning("interv: no program edits anything, so nothing is changed")
        return
    _refuse(config)
    slots = int(options.get("slots", DEFAULT_SLOTS))
    config.additional_config = InterventionConfig(bundle, slots, dict(config.additional_config))
    if not compat.is_compiled(config):
        compat.trace_without_compiling(config)
    if config.cache_config.enable_prefix_caching:
        config.cache_config.enable_prefix_caching = False
        compat.log.info("interv: prefix caching is off, its keys do not know edits yet")


def _no_default(bundle: Bundle) -> IntervError:
    names = ", ".join(bundle.programs)
    return IntervError(
        "E504",
        "no program would apply to any request",
        notes=[f"programs here: {names}" if names else "the documents have no program"],
        helps=[f"say which one applies: default {bundle.programs[0]}"] if names else [],
    )


def _refuse(config: compat.VllmConfig) -> None:
    parallel, compilation = config.parallel_config, config.compilation_config
    refused = {
        "sequence parallelism": getattr(compilation.pass_config, "enable_sp", False),
        "dual-batch overlap": getattr(parallel, "enable_dbo", False),
        "encoder-decoder models": config.model_config.is_encoder_decoder,
    }
    raise_all(
        [
            IntervError("E503", f"interventions are not supported with {name} yet")
            for name, on in refused.items()
            if on
        ]
    )
