"""One site while its edits and gates become the columns of an update."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from interv.passes.graph.column import Form, Kind, Mode
from interv.passes.graph.context import Context
from interv.passes.graph.directions import Adapter, Constant, Map, cosine_and_sine
from interv.passes.graph.ir import (
    Chain,
    Graph,
    Node,
    Origin,
    call,
    decay_of,
    gate_of,
    is_op,
    mask_of,
    origins,
    rate_of,
    selector_of,
)
from interv.passes.graph.ops import (
    ABLATIONS,
    READERS,
    ablate,
    ablate_keeping_norm,
    ablate_over,
    ablate_over_keeping_norm,
    cap,
    constant,
    exchange,
    joint,
    linear,
    low_rank,
    replace as replace_op,
    rotate,
    steer,
    steer_by_norm,
    steer_by_norm_keeping_norm,
    steer_keeping_norm,
)
from interv.passes.updates.planes import second

# What of their columns differs from a plain add, or from a cap to 0.
_AMOUNTS: Mapping[Any, tuple[Kind, Mode]] = MappingProxyType(
    {
        steer_keeping_norm: (Kind.KEEP_NORM, Mode.PLAIN),
        steer_by_norm: (Kind.ADD, Mode.SHARE),
        steer_by_norm_keeping_norm: (Kind.KEEP_NORM, Mode.SHARE),
        ablate: (Kind.ADD, Mode.PLAIN),
        ablate_keeping_norm: (Kind.KEEP_NORM, Mode.PLAIN),
        ablate_over: (Kind.ADD, Mode.OVER),
        ablate_over_keeping_norm: (Kind.KEEP_NORM, Mode.OVER),
    }
)


@dataclass(slots=True, eq=False)
class FusedSite:
    """The columns of a site.

    `probes` are the weights that gates of earlier sites give, `maps` what adapters are, both kept
    from one site to the next.
    """

    graph: Graph
    chain: Chain
    ctx: Context
    probes: dict[Node, Node]
    maps: dict[Node, Map]
    rows: dict[Node, int] = field(default_factory=dict)
    columns: list[Form] = field(default_factory=list)
    masks: list[Node] = field(default_factory=list)
    where: list[tuple[Origin, ...]] = field(default_factory=list)
    gates: dict[Node, int] = field(default_factory=dict)
    decays: dict[tuple[float, Any], int] = field(default_factory=dict)  # by rate and selector
    _edits: list[tuple[Node, range]] = field(default_factory=list)

    def add_gate(self, node: Node) -> None:
        """Append the column of a gate; it reads what the edits before it wrote."""
        opening: Any = node.args[2]
        row, sees, at = self._row(node.args[1]), self._sees(node), self._decay(node)
        self.gates[node] = len(self.columns)
        numbers = {"alpha": opening.sharpness, "low": opening.low, "high": opening.high}
        form = Form(row, -1, **numbers, sees=sees, kind=Kind.GATE, gate=at, mode=opening.mode)
        self._append([form], mask_of(node), node)

    def add_edit(self, edit: Node) -> None:
        """Append the columns of an edit."""
        own, weight, at = gate_of(edit), mask_of(edit), -1
        if own in self.gates:
            at = self.gates[own]
        elif own is not None:
            weight = self.probes[own]
        else:
            at = self._decay(edit)
        sees = self._sees(edit) if is_op(edit, *READERS) else 0
        first = len(self.columns)
        forms = [replace(form, gate=at) for form in self._forms(edit, sees)]
        self._append(forms, weight, edit)
        # What a map makes is the stream that all columns read, so none has to see it.
        if not is_op(edit, linear):
            self._edits.append((edit, range(first, len(self.columns))))

    def _decay(self, node: Node) -> int:
        """Return the column of the decay of a gate or an edit, a new one if need be, or -1."""
        fading: Any = decay_of(node)
        if fading is None:
            return -1
        key = (rate_of(node), selector_of(node))
        if key not in self.decays:
            self.decays[key] = len(self.columns)
            form = Form(-1, -1, alpha=math.log2(key[0]), kind=Kind.GATE, mode=Mode.DECAY)
            self._append([form], fading, node)
        return self.decays[key]

    def _append(self, forms: list[Form], mask: Node, node: Node) -> None:
        self.columns += forms
        self.masks += [mask] * len(forms)
        self.where += [origins(node)] * len(forms)

    def _numbers(self, node: Node) -> list[Any]:
        return [arg for arg in node.args if isinstance(arg, float)]

    def _row(self, node: Any) -> int:
        return self.rows.setdefault(node, len(self.rows))

    def _constant(self, label: str, array: Any, like: Node) -> int:
        with self.graph.inserting_before(self.chain.write):
            node = call(self.graph, constant, Constant(label, array), origins=origins(like))
        return self._row(node)

    def _sees(self, node: Node) -> int:
        if self.chain.together:
            return 0
        mine, found = selector_of(node), 0
        for edit, columns in self._edits:
            if self.ctx.overlap(selector_of(edit), mine):
                found |= sum(1 << j for j in columns)
        return found

    def _forms(self, edit: Node, sees: int) -> list[Form]:
        numbers = self._numbers(edit)
        if is_op(edit, exchange):
            return [self._exchange(edit, numbers[0], sees)]
        if is_op(edit, low_rank):
            return self._low_rank(edit, numbers[0], sees)
        if is_op(edit, joint):
            return self._joint(edit, sees)
        if is_op(edit, linear):
            return [Form(-1, -1, alpha=numbers[0], kind=Kind.LINEAR, map=self._map(edit.args[1]))]
        if is_op(edit, rotate):
            return self._rotate(edit, sees)
        row = self._row(edit.args[1])
        if is_op(edit, steer):
            return [Form(-1, row, alpha=numbers[0])]
        if edit.target in _AMOUNTS:
            kind, mode = _AMOUNTS[edit.target]
            if is_op(edit, *ABLATIONS):
                form = Form(row, row, strength=numbers[0], low=0.0, high=0.0)
            else:
                form = Form(-1, row, alpha=numbers[0])
            return [replace(form, sees=sees, kind=kind, mode=mode)]
        if is_op(edit, replace_op):
            scale, strength = numbers
            kind = Kind.REPLACE
            return [Form(-1, row, alpha=scale, strength=strength, sees=sees, kind=kind)]
        assert is_op(edit, cap)
        low, high, strength = numbers
        return [Form(row, row, strength=strength, low=low, high=high, sees=sees)]

    def _exchange(self, edit: Node, strength: float, sees: int) -> Form:
        """Concept a becomes b: a cap of `h·a/‖a‖²` to 0 along `a - b`."""
        nodes: list[Any] = list(edit.args[1:3])
        a, b = (node.args[0] for node in nodes)
        share = a.array / (a.array @ a.array)
        read = self._constant(f"{a}/‖{a}‖²", share, edit)
        write = self._constant(f"{a} − {b}", a.array - b.array, edit)
        return Form(read, write, strength=strength, low=0.0, high=0.0, sees=sees)

    def _rotate(self, edit: Node, sees: int) -> list[Form]:
        """The two readings of a plane, which are turned together; neither sees the other."""
        degrees, low, strength = self._numbers(edit)
        value = second(edit)[0]
        rows = (self._row(edit.args[1]), self._constant(value.label, value.array, edit))
        numbers = {"strength": strength, "low": low, "sees": sees}
        return [
            Form(row, row, alpha=share, kind=Kind.ROTATE, block=block, **numbers)
            for row, share, block in zip(rows, cosine_and_sine(degrees), (2, 0), strict=True)
        ]

    def _map(self, source: Any) -> Map:
        if source not in self.maps:
            self.maps[source] = source.args[0].map_at(source.args[1].layer)
        return self.maps[source]

    def _low_rank(self, edit: Node, scale: float, sees: int) -> list[Form]:
        """Every row of an adapter is a column; none sees another of them."""
        source: Any = edit.args[1]
        adapter: Adapter = source.args[0]
        rows = adapter.at(source.args[1].layer)
        forms = []
        for i, bias in enumerate(rows.bias.tolist()):
            read = self._constant(f"{adapter} A{i}", rows.read[i].numpy(), edit)
            write = self._constant(f"{adapter} B{i}", rows.write[i].numpy(), edit)
            forms.append(Form(read, write, alpha=scale * bias, beta=scale, sees=sees))
        return forms

    def _joint(self, edit: Node, sees: int) -> list[Form]:
        """Caps that are solved together: each sees all others, and the edits before them."""
        args: Any = edit.args
        first, count = len(self.columns), len(args[1])
        forms = []
        for i, (node, low, high) in enumerate(zip(*args[1:4], strict=True)):
            others = sum(1 << (first + k) for k in range(count) if k != i)
            row, block = self._row(node), count if i == 0 else 0
            one = Form(row, row, strength=1.0, low=low, high=high, sees=sees | others)
            forms.append(replace(one, kind=Kind.JOINT, block=block))
        return forms
