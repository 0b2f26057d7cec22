"""What an import has so far: declarations, statements, files to write, and what is to be said."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from interv.document.spec import (
    Ablate,
    AdapterDecl,
    Apply,
    Cap,
    Conflict,
    LayerRange,
    Program,
    Replace,
    SiteName,
    SiteRef,
    Spec,
    Steer,
    VectorDecl,
    vector_names,
)
from interv.document.wording import layer_text
from interv.errors import IntervError
from interv.importers.fields import shown
from interv.vectors import Adapter, Directions, load_adapter, load_vector

Tensors: TypeAlias = Mapping[str, npt.NDArray[np.float32]]
# A statement that an import makes: an edit of the stream.
Change: TypeAlias = Steer | Cap | Ablate | Replace | Apply
# A name ends in these where it is a word of the language or taken.
_ODD = re.compile(r"[^A-Za-z0-9_]+")
_WORDS = frozenset({"off", "all", "prompt", "generated", "token", "unit", "key", "by", "at"})
LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Options:
    """How a file is to be imported.

    `root` is the only folder in which files that it names are read; `family` says how the source's
    model is built, where the source's sites depend on that.
    """

    root: Path
    name: str | None = None
    family: str | None = None
    allow_inexact: bool = False
    positions: str | None = None  # of a pyreft folder: `f7+l7`


@dataclass(slots=True)
class Draft:
    """A document that is being imported to `target`; its arrays go into a folder beside it."""

    target: Path
    options: Options
    vectors: list[VectorDecl] = field(default_factory=list)
    adapters: list[AdapterDecl] = field(default_factory=list)
    programs: list[Program] = field(default_factory=list)
    files: dict[str, Tensors] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    inexact: list[str] = field(default_factory=list)
    widths: dict[int, str] = field(default_factory=dict)
    maps: set[str] = field(default_factory=set)  # the adapters that are linear maps

    @property
    def folder(self) -> str:
        """Return the name of the folder that arrays are written to."""
        return f"{self.target.stem}.vectors"

    def say(self, remark: str) -> None:
        """Note something that the mapping left out or changed without changing what it does."""
        if remark not in self.remarks:
            self.remarks.append(remark)

    def cannot(self, where: str, what: str, reason: str, instead: str) -> None:
        """Refuse what has no exact equal, or note it where inexact imports are allowed.

        `instead` says what the document then does. Raises E261.
        """
        if self.options.allow_inexact:
            self.inexact.append(f"{where}: {what} is not the same here, for {reason}; {instead}")
            return
        raise IntervError(
            "E261",
            f"{what} has no exact equal here",
            notes=(f"in {where}", reason),
            helps=(f"--allow-inexact goes on, and notes that {instead}",),
        )

    def named(self, wanted: str, *, program: bool = False) -> str:
        """Return a name of the language like this one that nothing of its kind has yet."""
        base = _ODD.sub("_", wanted).strip("_")[:LONGEST_NAME] or "v"
        base = f"_{base}" if base[0].isdigit() or base in _WORDS else base
        taken = {one.name for one in self.vectors} | {one.name for one in self.adapters}
        if program:
            taken = {one.name for one in self.programs}
        tries = (base, *(f"{base}_{i}" for i in range(2, len(taken) + 3)))
        return next(name for name in tries if name not in taken)

    def bank(self, wanted: str, rows: Mapping[int, npt.NDArray[np.float32]], where: str) -> str:
        """Declare directions by layer, to be written beside the document; return their name.

        Raises E263 for widths that differ, values that are not finite, and zero directions.
        """
        self.check_rows(rows, where)
        name = self.named(wanted)
        self.files[f"{name}.safetensors"] = {f"layer.{i}": row for i, row in rows.items()}
        path = f"{self.folder}/{name}.safetensors"
        self.vectors.append(VectorDecl(name=name, path=path))
        return name

    def check_rows(self, rows: Mapping[int, npt.NDArray[np.float32]], where: str) -> None:
        """Raise E263 for what `bank` refuses."""
        for layer, row in rows.items():
            self.check_width(row.shape[-1], f"{where}, layer {layer}")
            if not np.isfinite(row).all():
                raise unfit(f"the direction of layer {layer} is not finite", where)
            if not row.any():
                raise unfit(f"the direction of layer {layer} is zero", where)

    def update(self, wanted: str, tensors: Tensors, where: str) -> str:
        """Declare an adapter of plain tensors, to be written beside the document."""
        for key, values in tensors.items():
            if not np.isfinite(values).all():
                raise unfit(f"'{key}' is not finite", where)
        self.check_width(next(iter(tensors.values())).shape[-1], where)
        name = self.named(wanted)
        self.files[f"{name}.safetensors"] = tensors
        if any(key.endswith("weight") for key in tensors):
            self.maps.add(name)
        self.adapters.append(AdapterDecl(name=name, path=f"{self.folder}/{name}.safetensors"))
        return name

    def file_vector(self, wanted: str, path: str, where: str) -> tuple[str, Directions]:
        """Declare a vector file that the source names; return its name and what it holds."""
        inside = self.locate(path, where)
        loaded = load_vector(VectorDecl(name=self.named(wanted), path=path), inside)
        self.check_width(loaded.width, where)
        for one in self.vectors:
            if one.path == self._from_target(loaded.path):
                return one.name, loaded
        self.vectors.append(VectorDecl(name=loaded.name, path=self._from_target(loaded.path)))
        return loaded.name, loaded

    def read_adapter(self, wanted: str, path: str, where: str) -> Adapter:
        """Read an adapter that the source names; `keep_adapter` declares it."""
        loaded = load_adapter(
            AdapterDecl(name=self.named(wanted), path=path), self.locate(path, where)
        )
        self.check_width(loaded.width, where)
        return loaded

    def keep_adapter(self, loaded: Adapter) -> str:
        """Declare an adapter by its own file or folder; return its name."""
        path = self._from_target(loaded.path)
        for one in self.adapters:
            if one.path == path:
                return one.name
        self.adapters.append(AdapterDecl(name=loaded.name, path=path))
        if loaded.kind == "linear":
            self.maps.add(loaded.name)
        return loaded.name

    def locate(self, path: str, where: str) -> Path:
        """Return the folder that a path of the source starts from.

        Raises E262 where it leads out of that folder.
        """
        root = self.options.root.resolve()
        try:
            inside = (root / path).resolve().is_relative_to(root)
        except (OSError, ValueError, RuntimeError):
            inside = False
        if not inside:
            raise IntervError(
                "E262",
                f"{shown(path)} leads out of '{self.options.root}'",
                notes=(f"in {where}", "files that a file names are read under its own folder"),
                helps=("--root FOLDER allows another folder",),
            )
        return self.options.root

    def check_width(self, width: int, where: str) -> None:
        """Raise E263 where this width is not that of what came before."""
        self.widths.setdefault(width, where)
        if len(self.widths) > 1:
            first = next(iter(self.widths))
            note = f"{self.widths[first]} is {first} wide"
            raise unfit(f"{where} is {width} wide", where, note)

    def program(self, wanted: str, statements: Sequence[Change], conflict: Conflict) -> None:
        """Add a program; the name it gets is noted where it is another than `wanted`."""
        name = self.named(wanted, program=True)
        if name != wanted:
            self.say(f"{shown(wanted)} is called {name} here")
        self.programs.append(Program(name=name, statements=tuple(statements), conflict=conflict))

    def spec(self) -> Spec:
        """Return the document without what it does not use.

        Raises E264 where it would change nothing.
        """
        programs = tuple(one for one in self.programs if one.statements)
        edits = [edit for one in programs for edit in one.statements]
        used = {name for edit in edits for name in vector_names(edit)}
        used |= {edit.adapter for edit in edits if isinstance(edit, Apply)}
        if not programs:
            raise IntervError(
                "E264",
                "nothing is left that would change anything",
                notes=(*self.remarks, *self.inexact),
            )
        return Spec(
            vectors=tuple(one for one in self.vectors if one.name in used),
            adapters=tuple(one for one in self.adapters if one.name in used),
            programs=programs,
        )

    def _from_target(self, path: Path) -> str:
        """Write a path as the document names it: from its own folder."""
        start = self.target.parent.resolve()
        return Path(os.path.relpath(path.resolve(), start)).as_posix()


def unfit(what: str, where: str, *notes: str) -> IntervError:
    """Make the error for arrays that do not fit each other or what they are for."""
    return IntervError("E263", f"{what}, which does not fit", notes=(f"in {where}", *notes))


def place(layers: Iterable[int], name: SiteName = "post_block") -> SiteRef:
    """Return a site at some layers, runs of three and more as ranges."""
    items: list[int | LayerRange] = []
    for part in layer_text(layers).split(", "):
        first, _, last = part.partition("..")
        items.append(LayerRange(first=int(first), last=int(last)) if last else int(first))
    return SiteRef(name=name, layers=tuple(items))
