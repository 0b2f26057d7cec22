"""What programs of one request cannot be together under `conflict joint`, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from interv.codegen.bundle import Column
from interv.document.sites import Site
from interv.document.spec import Selector
from interv.document.wording import number_text, sites_text
from interv.errors import IntervError
from interv.passes.caps.bounds import Unsolvable
from interv.passes.graph.column import Kind

# So many caps that meet at a site are solved while a request waits; every subset is looked at.
MOST_CAPS = 12


@dataclass(frozen=True, slots=True)
class Line:
    """A column of a program at a site, as the request scales it; `number` is its place there.

    `kept` is how many weights of gates the programs before it keep for later sites.
    """

    program: str
    number: int
    column: Column
    selector: Selector
    kept: int

    @property
    def unfit(self) -> str:
        """Say why this is no cap or ablation of strength 1; "" where it is one."""
        one = self.column
        capping = one.a >= 0 and one.a == one.b and one.alpha == one.beta == 0
        if one.kind not in (Kind.ADD, Kind.JOINT) or not capping:
            return "is no cap"
        if one.gate >= 0:
            return "has a gate"
        return "" if one.strength == 1 else f"has strength {number_text(one.strength)} here"

    @property
    def where(self) -> str:
        """Name the statement: `calm (a.interv:4)`."""
        return f"'{self.program}' ({', '.join(self.column.origin)})"

    @property
    def bounds(self) -> str:
        """Print what it holds its direction in."""
        ends = (self.column.low, self.column.high)
        said = ("" if abs(end) == float("inf") else number_text(end) for end in ends)
        return f"{', '.join(self.column.origin)}: in [{', '.join(said)}]"


_POLICY = "the documents say 'conflict joint' for programs of one request"
_FIT = "cap and ablate, of strength 1 and without a gate"


@dataclass(slots=True)
class Refusals:
    """The errors of one request, each once however many sites it is at."""

    asked: str
    _made: dict[tuple[object, ...], Callable[[str], IntervError]] = field(default_factory=dict)
    _sites: dict[tuple[object, ...], list[Site]] = field(default_factory=dict)

    def errors(self) -> list[IntervError]:
        """Return the errors, with the sites that each is about."""
        return [make(sites_text(self._sites[key])) for key, make in self._made.items()]

    def _note(self, site: Site, make: Callable[[str], IntervError], *key: object) -> None:
        self._made.setdefault(key, make)
        sites = self._sites.setdefault(key, [])
        if site not in sites:
            sites.append(site)

    @property
    def _request(self) -> str:
        return f"in the request: {self.asked}"

    def unfit(self, site: Site, line: Line, other: Line) -> None:
        """Note an edit that meets another program's and is no cap of strength 1."""

        def make(sites: str) -> IntervError:
            return IntervError(
                "E883",
                f"an edit of program {line.where} meets program '{other.program}' at {sites},"
                " and cannot be solved jointly",
                notes=[self._request, f"it {line.unfit}", f"{_POLICY}: it takes {_FIT}"],
                helps=["ask for one of them, or have the document say another policy"],
            )

        self._note(site, make, "unfit", line.where, other.program)

    def crowd(self, site: Site, count: int, noun: str, most: int) -> None:
        """Note too much of something at a site."""

        def make(sites: str) -> IntervError:
            return IntervError(
                "E884",
                f"{count} {noun} of these programs meet at {sites}, {most} are possible",
                notes=[self._request, _POLICY],
                helps=["ask for fewer programs at once"],
            )

        self._note(site, make, "crowd", noun, count)

    def apart(self, site: Site, first: Line, second: Line) -> None:
        """Note two caps of one program that its own policy does not let hold together."""
        lines = [", ".join(one.column.origin) for one in (first, second)]

        def make(sites: str) -> IntervError:
            return IntervError(
                "E885",
                f"two caps of program '{first.program}' meet others at {sites}, and each other:"
                f" {lines[0]} and {lines[1]}",
                notes=[
                    self._request,
                    "inside a program its own policy holds, by which the first need not hold",
                ],
                helps=[f"let '{first.program}' say 'conflict joint' itself"],
            )

        self._note(site, make, "apart", *lines)

    def unsolvable(self, site: Site, lines: Sequence[Line], found: Unsolvable) -> None:
        """Note caps without a solution."""
        members = [lines[i] for i in found.members]
        named = " and ".join(one.where for one in members)
        close = [f"the largest |cos| between two of them is {found.cosine:.6g}"]

        def infeasible(sites: str) -> IntervError:
            return IntervError(
                "E886",
                f"the caps of these programs at {sites} cannot all hold: {named}",
                notes=[self._request, *(one.bounds for one in members)],
                helps=["ask for fewer of them, or widen a bound"],
            )

        def too_close(sites: str) -> IntervError:
            return IntervError(
                "E887",
                f"directions of these programs at {sites} are too close to dependent: {named}",
                notes=[self._request, *(close if found.why == "close" else [])],
                helps=["ask for fewer of them, or leave one of the directions out"],
            )

        make = infeasible if found.why == "infeasible" else too_close
        self._note(site, make, found.why, named)
