"""A file of vectors as it is: a document that steers along them where their tool would.

Such a file says which directions, and little of where and how much. The document steers at scale 1
at all of its layers, and says in comments what it took.
"""

from __future__ import annotations

import os
from pathlib import Path

from interv.document.sites import POST_BLOCK
from interv.document.spec import SiteName, SiteRef, Steer, VectorDecl
from interv.errors import IntervError
from interv.importers.draft import Draft, place
from interv.importers.fields import Fields, check_size
from interv.vectors import Directions, is_adapter, load_vector
from interv.vectors.load import READERS

# What holds vectors by its suffix alone; `.pt`, `.pkl` and `.json` may hold other things.
SUFFIXES = tuple(name for name in READERS if name not in (".json", ".pickle", ".pkl", ".pt"))
PATH = "path"


def holds_vectors(path: Path) -> bool:
    """Say whether a file can be read as vectors, and is not an adapter."""
    if path.suffix not in READERS or is_adapter(path):
        return False
    try:
        loaded = load_vector(VectorDecl(name="_", path=path.name), path.parent)
    except IntervError as error:
        # Several tensors are vectors too: the error says that a key is missing.
        return error.code == "E224" and path.suffix != ".json"
    # A list of numbers in JSON may be anything; directions by layer are not.
    return path.suffix != ".json" or loaded.layers is not None


def open_vectors(path: Path) -> Fields:
    """Return what stands for a file of vectors; raise E200 where it is none that can be opened."""
    check_size(path)
    return Fields({PATH: str(path)})


def read(fields: Fields, draft: Draft, name: str) -> None:
    """Add a program that steers along the directions of a file.

    Raises E220 to E228 and E237 to E239 where they cannot be read, E261 for directions that are
    added where no site is.
    """
    file = Path(fields.text(PATH))
    path = Path(os.path.relpath(file.resolve(), draft.options.root.resolve())).as_posix()
    declared, loaded = draft.file_vector(file.stem, path, file.name)
    origin = loaded.origin
    if origin is not None:
        draft.say(f"it is most likely of {origin.tool}: {origin.why}")
    for note in loaded.reading:
        draft.say(note)
    if loaded.rows is not None and not loaded.numbering:
        _number(draft, loaded)
    where = _place(draft, loaded, file.name)
    draft.program(draft.options.name or name, [Steer(at=where, vector=declared)], "sequential")


def _number(draft: Draft, loaded: Directions) -> None:
    """Say what rows are numbered by where the tool is known, or what was taken."""
    if loaded.origin is not None and loaded.origin.rows == "hidden_states":
        draft.vectors[-1] = draft.vectors[-1].model_copy(update={"rows": "hidden_states"})
        return
    draft.say(
        "row i is taken for block i; add 'rows hidden_states' to the vector where row 0 is the "
        "embedding"
    )


def _place(draft: Draft, loaded: Directions, where: str) -> SiteRef:
    site = loaded.measured or (loaded.origin.site if loaded.origin else POST_BLOCK)
    if not site:
        draft.cannot(
            where,
            "what is added to the output of a norm",
            "no site is behind one",
            f"it is added at {POST_BLOCK}",
        )
    name: SiteName = _site(site or POST_BLOCK)
    if loaded.layers is not None and loaded.rows is None:
        return place(loaded.layers, name)
    if loaded.origin is not None and loaded.origin.layer is not None:
        return place([loaded.origin.layer], name)
    draft.say("the file does not say at which layers to steer: '*' is every one")
    return SiteRef(name=name, layers=("*",))


def _site(name: str) -> SiteName:
    sites: dict[str, SiteName] = {
        "pre_attn": "pre_attn",
        "post_attn": "post_attn",
        "post_block": "post_block",
    }
    return sites[name]
