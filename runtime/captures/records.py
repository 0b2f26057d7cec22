"""Records: what one capture took of one request, its labels, and whether all of it is there."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from interv.codegen.bundle import Bundle, CaptureTable
from interv.document.markers import Following
from interv.document.selectors import atoms
from interv.document.spec import Token
from interv.passes.graph.selector_masks import Tokens, select
from interv.runtime.captures.rows import Rows, chosen
from interv.runtime.captures.staging import Ended, Group
from interv.runtime.choice import Choice
from interv.sinks.record import Captured, Part


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """Makes the records of one worker's requests; `model` is the name that they say."""

    bundle: Bundle
    groups: tuple[Group, ...]
    model: str

    def of(
        self, ended: Ended, choice: Choice, rows: Mapping[int, Rows]
    ) -> Iterator[tuple[int, Captured, str]]:
        """Yield each capture of a request: its number, its record, and what is missing of it.

        Only of captures that have a site in this stage of the pipeline.
        """
        here = functools.reduce(operator.or_, (group.captures for group in self.groups), 0)
        names = statements(self.bundle)
        for bit, table in enumerate(self.bundle.captures):
            if choice.captures & here & 1 << bit:
                record = self._record(bit, names[bit], ended, choice, rows)
                yield bit, record, ended.error or _lost(self.bundle, table, record)

    def _record(
        self, bit: int, name: str, ended: Ended, choice: Choice, rows: Mapping[int, Rows]
    ) -> Captured:
        assert choice.label is not None
        table = self.bundle.captures[bit]
        return Captured(
            request=choice.label.request,
            sample=sample_of(ended.request, choice.label.request),
            tag=choice.label.tag,
            program=table.program,
            statement=name,
            digest=self.bundle.contents[table.program],
            model=self.model,
            prompt_tokens=ended.prompt_tokens,
            tokens=ended.tokens,
            ended="finished" if ended.finished else "aborted",
            rank=table.rank,
            parts=_parts(self.groups, rows, bit, ended.tokens - 1),
        )


def _parts(
    groups: tuple[Group, ...], rows: Mapping[int, Rows], bit: int, before: int
) -> tuple[Part, ...]:
    """Return what one capture takes of a request, in the order of the forward pass."""
    found = []
    for g, group in enumerate(groups):
        if not (group.captures >> bit & 1 and g in rows):
            continue
        mine = torch.from_numpy(chosen(rows[g], bit, before))
        if not len(mine):
            continue
        position, token_id = rows[g].position[mine], rows[g].token_id[mine]
        for p, point in enumerate(group.points):
            own = rows[g].rows[p][mine]
            name, layer = point.site.name, point.site.layer
            found.append((point.site, Part(name, layer, point.after, own, position, token_id)))
    found.sort(key=lambda item: (item[0].order, item[1].after))
    return tuple(part for _, part in found)


def _lost(bundle: Bundle, table: CaptureTable, record: Captured) -> str:
    """Say what is missing of the rows that a finished request must have, "" where none is."""
    selector = bundle.selectors[table.selector]
    by_ids = any(isinstance(one, Token | Following) for one in atoms(selector))
    if record.ended != "finished" or by_ids:
        return ""
    position = torch.arange(record.tokens - 1)
    length = torch.full_like(position, record.prompt_tokens)
    wanted = select(Tokens(position, length, position), selector).nonzero().flatten()
    for part in record.parts:
        if not torch.equal(part.position, wanted):
            found = len(part.position)
            return f"{found} rows of {part.name} were captured, {len(wanted)} were expected"
    if not record.parts and len(wanted):
        return f"no rows were captured, {len(wanted)} of each site were expected"
    return ""


def sample_of(own: str, asked: str) -> int:
    """Return which sample of the client's request the engine's own id stands for."""
    head, _, rest = own.partition("_")
    return int(head) if head.isdigit() and rest.startswith(asked) and own != asked else 0


def statements(bundle: Bundle) -> list[str]:
    """Return what each capture is called: its line, and a number where the line has several.

    Without the folders of its document, which are no client's business.
    """
    places = [(one.program, Path(one.where).name) for one in bundle.captures]
    return [
        where
        if places.count((program, where)) == 1
        else f"{where}.{places[: bit + 1].count((program, where))}"
        for bit, (program, where) in enumerate(places)
    ]
