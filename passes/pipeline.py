"""The pipeline: one tuple of functions, and the verifier between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from interv.passes.drop_dead import drop_dead
from interv.passes.fold_adds import fold_adds
from interv.passes.fold_constants import fold_constants
from interv.passes.fuse_updates import fuse_updates
from interv.passes.graph.context import Context, Remark
from interv.passes.graph.ir import Graph
from interv.passes.graph.verify import verify
from interv.passes.resolve_conflicts import resolve_conflicts
from interv.passes.resolve_sites import resolve_sites
from interv.passes.share_reads import share_reads
from interv.passes.solve_joint import solve_joint

Pass: TypeAlias = Callable[[Graph, Context], Graph]

PASSES: tuple[Pass, ...] = (
    resolve_sites,
    resolve_conflicts,
    fold_constants,
    solve_joint,
    # Before the adds fold: those with one gate can.
    share_reads,
    fold_adds,
    fuse_updates,
    drop_dead,
)


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """A graph after a pass, `build` being the first, and what the pass remarked."""

    name: str
    graph: Graph
    remarks: tuple[Remark, ...] = ()


# A program that a request brings along has only the directions that the banks hold already, so
# its adds stay apart.
INLINE_PASSES = tuple(one for one in PASSES if one is not fold_adds)


def run_passes(graph: Graph, ctx: Context, passes: tuple[Pass, ...] = PASSES) -> tuple[Stage, ...]:
    """Run the pipeline over one program and keep every graph on the way.

    Raises what the passes refuse, and E301 where one of them makes an invalid graph.
    """
    stages = [Stage("build", verify(graph, "build"))]
    for one in passes:
        said = len(ctx.remarks)
        name = one.__name__
        graph = verify(one(graph, ctx), name)
        stages.append(Stage(name, graph, tuple(ctx.remarks[said:])))
    return tuple(stages)
