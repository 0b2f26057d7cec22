"""The compiler that vLLM gives to Dynamo, with our splice before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from interv.codegen.bundle import Bundle
from interv.passes.captured.absorb_norm import absorb_norm
from interv.passes.captured.block_names import block_names
from interv.passes.captured.dataflow import Keeps
from interv.passes.captured.find_sites import FoundSites, find_sites
from interv.passes.captured.norm_rounding import Rounding
from interv.passes.captured.own_rounding import own_rounding
from interv.passes.captured.splice import splice
from interv.runtime import compat
from interv.runtime.config import InterventionConfig
from interv.runtime.worker.engine import unreached
from interv.runtime.worker.op import UPDATE, UPDATE_NORM
from interv.runtime.wrap import wrap_seam


def init_backend(original: Any, self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the backend of a model's graph; wraps `CompilationConfig.init_backend`."""
    inner = original(self, vllm_config, *args, **kwargs)
    carried = vllm_config.additional_config
    if not (isinstance(carried, InterventionConfig) and carried.bundle.spliced):
        return inner
    encoder = kwargs.get("is_encoder") or (len(args) > 1 and args[1])
    if encoder or not compat.is_backbone():
        return inner
    if isinstance(inner, str):
        inner = _named(inner, dict(self.inductor_compile_config))
    rounding = compat.norm_rounding(vllm_config) if carried.absorb_norm else None
    wrap_seam(compat.graph_passes_class(), "__call__", after_vllms_passes)
    return _splicing(carried.bundle, inner, rounding, compat.keepers(vllm_config))


def after_vllms_passes(original: Any, self: Any, graph: Any, *args: Any, **kwargs: Any) -> Any:
    """Let updates round the stream for themselves; wraps `PostGradPassManager.__call__`."""
    original(self, graph, *args, **kwargs)
    own_rounding(graph, UPDATE.all)


def _named(name: str, options: dict[str, Any]) -> Callable[[Any, Any], Any]:
    """Return one of torch's compilers as a function, with the options vLLM gives it by name."""

    def backend(graph_module: Any, inputs: Any) -> Any:
        return compat.compile_trace(graph_module, inputs, name, options)

    return backend


def _splicing(
    bundle: Bundle, inner: Callable[[Any, Any], Any], rounding: Rounding | None, keeps: Keeps
) -> Callable[[Any, Any], Any]:
    """Splice before a compiler; where the norms round is given where updates are to join them."""

    def backend(graph_module: Any, inputs: Any) -> Any:
        splice_bundle(graph_module, bundle, keeps)
        if rounding is not None:
            _absorb(graph_module, bundle, rounding)
        return inner(graph_module, inputs)

    return backend


def _absorb(graph_module: Any, bundle: Bundle, rounding: Rounding) -> None:
    edited = {str(table.site) for table in bundle.sites}
    joined = absorb_norm(graph_module.graph, UPDATE, UPDATE_NORM, rounding, edited)
    graph_module.graph.lint()
    graph_module.recompile()
    compat.log.info("%d updates joined the add-norm that follows them", len(joined.sites))
    for site, why in joined.kept.items():
        compat.log.info("the update of %s stays a launch of its own: %s", site, why)


def splice_bundle(graph_module: Any, bundle: Bundle, keeps: Keeps) -> FoundSites:
    """Splice every site of a bundle whose block is in this graph.

    Raises IntervError E521 where a block is there and the site is not.
    """
    found = find_sites(graph_module.graph, bundle.hidden_size, bundle.num_layers, keeps)
    wanted = [site for site in bundle.spliced if site.layer in found.layers]
    lost = [site for site in wanted if site not in found.points]
    if lost:
        raise unreached(bundle, lost, found)
    names = block_names(graph_module.graph, compat.layer_name)
    splice(graph_module.graph, [found.points[site] for site in wanted], UPDATE, names)
    graph_module.graph.lint()
    graph_module.recompile()
    return found
