"""Map a foreign file to a document, and write it with the arrays that it holds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from interv.document.document import Document
from interv.document.spec import Spec
from interv.dsl.formatter import format_text
from interv.dsl.printer import print_spec
from interv.errors import IntervError
from interv.files import replacing
from interv.importers.draft import Draft, Options, Tensors
from interv.importers.families import check_family
from interv.importers.fields import shown
from interv.importers.formats import FORMATS, open_file
from interv.load import from_spec

WIDTH = 96


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """A document that does what a file of another system says.

    `remarks` are what was left out or changed without changing what it does, `inexact` what does
    not do the same here. `files` are the arrays to write, by path, as named float32 tensors.
    """

    target: Path
    format: str
    spec: Spec
    text: str
    files: Mapping[Path, Tensors]
    remarks: tuple[str, ...]
    inexact: tuple[str, ...]


def import_file(
    source: Path, target: Path, options: Options, format_name: str | None = None
) -> Imported:
    """Map `source` to a document that is to be written to `target`; nothing is written yet.

    Raises E110 and E200 for a file that cannot be read, E260 for one of no known format, E105 and
    E207 to E211 for wrong fields, E220 to E235 for files that it names, E261 for what has no
    exact equal, E262 for paths that lead out of the root, E263 for arrays that do not fit, E264
    where nothing is left, E843 and E844 for positions of a pyreft folder, and what `check` refuses
    of the document.
    """
    if target.suffix != ".interv":
        notes = ("a text document ends in .interv",)
        raise IntervError("E200", f"'{target}' is not a text document", notes=notes)
    if options.family is not None:
        check_family(options.family)
    name, fields = open_file(source, format_name)
    if options.positions is not None and name != "pyreft":
        note = f"'{source.name}' is {FORMATS[name].title}"
        raise IntervError("E211", "positions are for a pyreft folder alone", notes=(note,))
    draft = Draft(target, options)
    FORMATS[name].read(fields, draft, target.stem)
    spec = draft.spec()
    document: Document = from_spec(spec, str(target), target.parent)
    paths = {one.path for one in spec.vectors} | {one.path for one in spec.adapters}
    return Imported(
        target=target,
        format=name,
        spec=document.spec,
        text=_text(source, FORMATS[name].title, spec, draft),
        files={
            target.parent / draft.folder / file: tensors
            for file, tensors in draft.files.items()
            if f"{draft.folder}/{file}" in paths
        },
        remarks=tuple(draft.remarks),
        inexact=tuple(draft.inexact),
    )


def _text(source: Path, title: str, spec: Spec, draft: Draft) -> str:
    head, _, body = print_spec(spec).partition("\n")
    lines = [f"from {shown(source.name)}, {title}", *draft.remarks]
    lines += [f"not exact: {one}" for one in draft.inexact]
    comments = [line for one in lines for line in _wrapped(one)]
    return format_text("\n".join([head, *comments, body]))


def _wrapped(remark: str) -> list[str]:
    flat = "".join(c if c.isprintable() else "?" for c in remark)
    return textwrap.wrap(flat, WIDTH, initial_indent="# ", subsequent_indent="#   ") or ["#"]


def write_import(imported: Imported, *, force: bool = False) -> None:
    """Write the arrays, then the document; each file appears whole or not at all.

    Raises E231 for a file that exists, unless `force` replaces it, and E232 where a folder does
    not take one.
    """
    paths = [*imported.files, imported.target]
    for path in paths:
        if path.exists() and not force:
            raise IntervError("E231", f"'{path}' exists already", helps=("--force replaces it",))
    for path, tensors in imported.files.items():
        with replacing(path) as part:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(_packed(tensors))
    with replacing(imported.target) as part:
        part.write_bytes(imported.text.encode())


def _packed(tensors: Tensors) -> bytes:
    import numpy as np
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(values) for name, values in tensors.items()})
