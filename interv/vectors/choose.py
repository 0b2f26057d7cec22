"""Which of a file's arrays a declaration means, and what each of them is the direction of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from interv.document.spec import VectorDecl
from interv.errors import IntervError, suggest
from interv.vectors.directions import Vector
from interv.vectors.fields import LAYER_FIELDS, layers_said, left_out
from interv.vectors.naming import KNOWN, read_names
from interv.vectors.numbering import HIDDEN_STATES, behind_norm, by_blocks, said_rows
from interv.vectors.raw import Contents, Raw, decode
from interv.vectors.shapes import row, squeezed
from interv.vectors.words import list_text

Bank = dict[int, Vector]
# A list of the layers of rows is no longer than this, nor are the names that are looked through.
MOST_BESIDE = 4096


@dataclass(slots=True)
class Chosen:
    """What a declaration means: a bank or one direction, where it came from, what was taken."""

    found: Bank | Vector
    raws: tuple[Raw, ...]
    rows: int | None = None  # how many blocks the rows of one tensor are for
    numbering: str = ""  # what file or document say the directions are numbered by
    site: str = ""
    notes: list[str] = field(default_factory=list)


def choose(contents: Contents, decl: VectorDecl) -> Chosen:
    """Return what a declaration means of a file.

    Raises E223, E224 and E227 for tensors that are not there, are several or are no directions,
    E237 for a row that is not there, E238 for a numbering of what has none, BadFile for fields
    beside the tensors that make no sense.
    """
    one = _Choice(_apart(contents), decl)
    chosen = one.row() if decl.row is not None else one.all()
    chosen.notes[:0] = contents.reading
    return _numbered(chosen, contents, decl)


def _numbered(chosen: Chosen, contents: Contents, decl: VectorDecl) -> Chosen:
    if decl.row is not None:
        return chosen
    chosen.numbering = decl.rows or said_rows(contents.beside, contents.facts) or ""
    if chosen.numbering != HIDDEN_STATES:
        return chosen
    chosen.found, rows, note = by_blocks(chosen.found, chosen.rows, decl.path)
    chosen.notes.append(note)
    chosen.rows = rows
    if rows is not None:
        chosen.notes.append(behind_norm(rows))
    return chosen


def _apart(contents: Contents) -> Contents:
    """Take whole numbers that say a layer from among the tensors of a format without fields."""
    beside = dict(contents.beside)
    for name, raw in contents.tensors.items():
        small = len(raw.shape) < 2 and len(raw.data) <= 8 * MOST_BESIDE
        if name in LAYER_FIELDS and raw.dtype[0] in "IU" and small:
            values = [int(one) for one in decode(raw).reshape(-1)]
            beside[name] = values if raw.shape and len(values) > 1 else values[0]
    if len(beside) == len(contents.beside):
        return contents
    rest = {name: raw for name, raw in contents.tensors.items() if name not in beside}
    return replace(contents, tensors=rest, beside=beside)


@dataclass(slots=True)
class _Choice:
    """One declaration and the file that it names."""

    contents: Contents
    decl: VectorDecl
    notes: list[str] = field(default_factory=list)
    site: str = ""

    def all(self) -> Chosen:
        """Return the bank or the direction that is meant."""
        names = self._names()
        bank = self._layers(names)
        if bank is not None:
            return self._bank(bank)
        if len(names) > 1:
            self._several(names)
        return self._one(names[0])

    def row(self) -> Chosen:
        """Return one row of a matrix, without decoding the others."""
        names, index = self._names(), self.decl.row or 0
        if len(names) > 1:
            self._several(names)
        raw = squeezed(self.contents.tensors[names[0]])
        if len(raw.shape) != 2:
            raise IntervError(
                "E237",
                f"{self._where(names[0])} has shape {list(raw.shape)}, and no rows",
                notes=("a row is taken of a matrix [N, H]",),
            )
        if index >= raw.shape[0]:
            raise IntervError(
                "E237",
                f"{self._where(names[0])} has no row {index}: it has {raw.shape[0]} rows",
                notes=(f"rows there: 0..{raw.shape[0] - 1}",),
            )
        picked = row(raw, index)
        return Chosen(self._decode(picked, names[0]), (picked,), notes=self.notes)

    def _names(self) -> list[str]:
        """Return the tensors that are meant: all, the one that `key` names, or those behind it."""
        names, key = list(self.contents.tensors), self.decl.key
        if not names:
            raise IntervError("E223", f"'{self.decl.path}' holds no tensors")
        if key is None or key in names:
            return names if key is None else [key]
        inner = [name for name in names if name.startswith(f"{key}.")]
        if inner and read_names(name[len(key) + 1 :] for name in inner):
            return inner
        raise IntervError(
            "E223",
            f"'{self.decl.path}' holds no tensor '{key}'",
            notes=(f"tensors there: {list_text(names)}",),
            helps=suggest(key, names),
        )

    def _layers(self, names: list[str]) -> Mapping[int, str] | None:
        """Return the tensors by their layers, where each of them has one."""
        own, layers = self.contents.own_layers, self.contents.layers
        key = self.decl.key
        if key is not None and names == [key]:
            # A key gives one direction, which serves every layer, unless the file says its own.
            return {own[key]: key} if key in own else None
        if key is not None:
            skip = len(key) + 1
            reading = read_names(name[skip:] for name in names)
            assert reading is not None
            self._note(f"the names behind '{key}' are read as layers")
            return {layer: f"{key}.{name}" for layer, name in reading.layers.items()}
        if layers or own:
            if not layers and len(names) == 1:
                return {own[name]: name for name in names}
            return layers or None
        if (reading := read_names(names)) is None:
            return None
        self._note(reading.note)
        self.site = reading.pattern.site
        return reading.layers

    def _bank(self, layers: Mapping[int, str]) -> Chosen:
        found: Bank = {}
        for layer, name in layers.items():
            raw = self.contents.tensors[name]
            flat = squeezed(raw)
            if len(flat.shape) != 1:
                raise self._rank(name, raw, "[H]")
            found[layer] = self._decode(flat, name)
        self._reshaped(next(iter(layers.values())))
        self._left_out("")
        raws = tuple(self.contents.tensors[name] for name in layers.values())
        return Chosen(found, raws, site=self.site, notes=self.notes)

    def _one(self, name: str) -> Chosen:
        """Return what one tensor means: a direction, or row by row those of layers."""
        raw = self.contents.tensors[name]
        flat = squeezed(raw)
        if len(flat.shape) not in (1, 2):
            raise self._rank(name, raw, "[H] or [L, H]")
        self._reshaped(name)
        values = self._decode(flat, name)
        field_name, said = layers_said(self.contents.beside) or ("", None)
        self._left_out(field_name)
        chosen = Chosen(values, (raw,), notes=self.notes)
        if values.ndim == 1:
            if said is not None:
                chosen.found = {self._only(field_name, said): values}
            return chosen
        if isinstance(said, tuple):
            layers = self._listed(field_name, said, len(values))
            chosen.found = dict(zip(layers, values, strict=True))
            return chosen
        if said is not None:
            self._note(f"'{field_name}' {said} is not looked at: there are {len(values)} rows")
        chosen.found, chosen.rows = dict(enumerate(values)), len(values)
        return chosen

    def _only(self, name: str, said: int | tuple[int, ...]) -> int:
        listed = said if isinstance(said, tuple) else (said,)
        if len(listed) != 1:
            raise self._misfit(name, listed, 1)
        self._note(f"its '{name}' says that the direction is of layer {listed[0]} alone")
        return listed[0]

    def _listed(self, name: str, said: tuple[int, ...], rows: int) -> tuple[int, ...]:
        if len(said) != rows or len(set(said)) < rows:
            raise self._misfit(name, said, rows)
        self._note(f"its '{name}' says of which layers its {rows} rows are")
        return said

    def _misfit(self, name: str, said: tuple[int, ...], rows: int) -> IntervError:
        """Return E239: the layers a file lists are not those of its directions."""
        held = "one direction" if rows == 1 else f"{rows} rows"
        return IntervError(
            "E239",
            f"'{self.decl.path}' lists {len(set(said))} layers under '{name}', and holds {held}",
            helps=("list the layer of each row, once",),
        )

    def _several(self, names: list[str]) -> NoReturn:
        heads = {name.partition(".")[0] for name in names[:MOST_BESIDE]}
        inner = sorted(head for head in heads if _is_bank(head, names))
        helps = [f'choose one: key "{inner[0] if len(inner) > 1 else names[0]}"']
        if "W_dec" in names:
            helps = ['choose a feature of a sparse autoencoder: key "W_dec" row 17']
        if not self.contents.own_layers:
            helps.append(f"a bank has all of them named by layers, as in: {KNOWN}")
        raise IntervError(
            "E224",
            f"'{self.decl.path}' holds {len(names)} tensors, and no key says which is meant",
            notes=(f"tensors there: {list_text(names)}",),
            helps=helps,
        )

    def _note(self, text: str) -> None:
        if text:
            self.notes.append(text)

    def _left_out(self, used: str) -> None:
        self._note(left_out(self.contents.beside, used))

    def _reshaped(self, name: str) -> None:
        raw = self.contents.tensors[name]
        if (shape := squeezed(raw).shape) != raw.shape:
            where = f"'{name}' of shape" if name else "its shape"
            self._note(f"{where} {list(raw.shape)} is read as {list(shape)}")

    def _where(self, name: str) -> str:
        return f"'{name}' in '{self.decl.path}'" if name else f"'{self.decl.path}'"

    def _decode(self, raw: Raw, name: str) -> Vector:
        try:
            return decode(raw)
        except IntervError as error:
            message = f"{self._where(name)}: {error.message}"
            raise IntervError(error.code, message, notes=error.notes) from error

    def _rank(self, name: str, raw: Raw, wanted: str) -> IntervError:
        return IntervError(
            "E227",
            f"{self._where(name)} has shape {list(raw.shape)}",
            notes=(f"a direction has shape {wanted}",),
        )


def _is_bank(head: str, names: Sequence[str]) -> bool:
    if len(names) > MOST_BESIDE:
        return False
    inner = [name[len(head) + 1 :] for name in names if name.startswith(f"{head}.")]
    return len(inner) > 1 and read_names(inner) is not None
